package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// reverser answers with what it read, backwards, and only after the end of input: it shows that half-close is kept.
func reverser(conn net.Conn) {
	defer conn.Close()
	data, _ := io.ReadAll(conn)
	for i, j := 0, len(data)-1; i < j; i, j = i+1, j-1 {
		data[i], data[j] = data[j], data[i]
	}
	_, _ = conn.Write(data)
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	listener := must(net.Listen(network, address))
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go reverser(conn)
		}
	}()
	return listener
}

func reversed(t *testing.T, conn halfCloser) {
	t.Helper()
	got := within(t, func() string {
		io.WriteString(conn, "stressed")
		must(0, conn.CloseWrite())
		return string(must(io.ReadAll(conn)))
	})
	if got != "desserts" {
		t.Errorf("got %q", got)
	}
	conn.Close()
}

func TestConnectionsFromInsideKeepHalfClose(t *testing.T) {
	w := newWorkspace(t)
	path := filepath.Join(t.TempDir(), "socket")
	for _, listener := range []net.Listener{listen(t, "tcp", "127.0.0.1:0"), listen(t, "unix", path)} {
		address := listener.Addr()
		reversed(t, must(w.client.Dial(address.Network(), address.String())).(halfCloser))
	}
}

func TestARefusedConnectionSaysWhy(t *testing.T) {
	w := newWorkspace(t)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	listener.Close()
	for network, address := range map[string]string{
		"tcp": listener.Addr().String(), "unix": filepath.Join(t.TempDir(), "none"),
	} {
		_, err := w.client.Dial(network, address)
		var refusal *ssh.OpenChannelError
		if !errors.As(err, &refusal) || refusal.Reason != ssh.ConnectionFailed {
			t.Fatalf("%s: %v", network, err)
		}
		if why := refusal.Message; why != "connection refused" && why != "no such file or directory" {
			t.Errorf("%s: %q", network, why)
		}
	}
	w.alive()
}

func TestAClosedChannelEndsItsConnection(t *testing.T) {
	w := newWorkspace(t)
	listener := must(net.Listen("unix", filepath.Join(t.TempDir(), "socket")))
	defer listener.Close()
	conn := must(w.client.Dial("unix", listener.Addr().String()))
	inside := must(must(listener.Accept()).(*net.UnixConn).File())
	conn.Close()
	eventually(t, "the connection is closed both ways", func() bool { // the end of input alone gives no POLLHUP
		polled := []unix.PollFd{{Fd: int32(inside.Fd()), Events: unix.POLLIN}}
		_, _ = unix.Poll(polled, 0)
		return polled[0].Revents&unix.POLLHUP != 0
	})
}

type tcpRequest struct {
	Address string
	Port    uint32
}

func TestListeningInsideTheWorkspace(t *testing.T) {
	w := newWorkspace(t)
	channels := w.client.HandleChannelOpen("forwarded-tcpip")
	ok, reply, err := w.client.SendRequest("tcpip-forward", true, ssh.Marshal(tcpRequest{"localhost", 0}))
	if !ok || err != nil || len(reply) != 4 {
		t.Fatalf("%v, %v, %q", ok, err, reply)
	}
	port := binary.BigEndian.Uint32(reply)
	inside := must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", itoa(port)))).(*net.TCPConn)
	opening := within(t, func() ssh.NewChannel { return <-channels })
	var wire struct {
		Address    string
		Port       uint32
		Originator string
		OriginPort uint32
	}
	must(0, ssh.Unmarshal(opening.ExtraData(), &wire))
	local := inside.LocalAddr().(*net.TCPAddr)
	if wire.Address != "localhost" || wire.Port != port || wire.Originator != "127.0.0.1" || wire.OriginPort != uint32(local.Port) {
		t.Errorf("got %+v", wire)
	}
	channel, requests, err := opening.Accept()
	must(0, err)
	go ssh.DiscardRequests(requests)
	cancel := ssh.Marshal(tcpRequest{"localhost", port})
	if ok, _, _ := w.client.SendRequest("cancel-tcpip-forward", true, cancel); !ok {
		t.Error("cancel was refused")
	}
	if _, err := net.Dial("tcp", inside.RemoteAddr().String()); err == nil {
		t.Error("it still listens")
	}
	if ok, _, _ := w.client.SendRequest("cancel-tcpip-forward", true, cancel); ok {
		t.Error("there was nothing left to cancel")
	}
	go reverser(&channelConn{channel, inside})
	reversed(t, inside) // the connection outlives its listener
}

func TestTwoListenersCannotShareAPort(t *testing.T) {
	w := newWorkspace(t)
	_, reply, _ := w.client.SendRequest("tcpip-forward", true, ssh.Marshal(tcpRequest{"127.1.0.1", 0}))
	asked := ssh.Marshal(tcpRequest{"127.1.0.1", binary.BigEndian.Uint32(reply)})
	if ok, _, _ := w.client.SendRequest("tcpip-forward", true, asked); ok {
		t.Error("accepted")
	}
	w.alive()
}

func TestARefusedForwardClosesItsConnection(t *testing.T) {
	w := newWorkspace(t)
	_, reply, _ := w.client.SendRequest("tcpip-forward", true, ssh.Marshal(tcpRequest{"127.0.0.1", 0}))
	inside := must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", itoa(binary.BigEndian.Uint32(reply)))))
	if got := within(t, func() string { return string(must(io.ReadAll(inside))) }); got != "" { // nobody handles the kind
		t.Errorf("got %q", got)
	}
}

func TestListeningOnASocketFile(t *testing.T) {
	w := newWorkspace(t)
	channels := w.client.HandleChannelOpen("forwarded-streamlocal@openssh.com")
	path := filepath.Join(t.TempDir(), "socket")
	asked := ssh.Marshal(struct{ Path string }{path})
	if ok, _, _ := w.client.SendRequest("streamlocal-forward@openssh.com", true, asked); !ok {
		t.Fatal("refused")
	}
	if mode := must(os.Stat(path)).Mode().Perm(); mode != 0o600 {
		t.Errorf("mode %o", mode)
	}
	inside := must(net.Dial("unix", path)).(*net.UnixConn)
	opening := within(t, func() ssh.NewChannel { return <-channels })
	if want := string(ssh.Marshal(struct{ Path, Reserved string }{path, ""})); string(opening.ExtraData()) != want {
		t.Errorf("got %q", opening.ExtraData())
	}
	channel, requests, err := opening.Accept()
	must(0, err)
	go ssh.DiscardRequests(requests)
	go reverser(&channelConn{channel, inside})
	reversed(t, inside)
	if ok, _, _ := w.client.SendRequest("cancel-streamlocal-forward@openssh.com", true, asked); !ok {
		t.Error("cancel was refused")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
}

func TestAFileInTheWayOfASocketStays(t *testing.T) {
	w := newWorkspace(t)
	path := filepath.Join(t.TempDir(), "precious")
	must(0, os.WriteFile(path, []byte("data"), 0o644))
	asked := ssh.Marshal(struct{ Path string }{path})
	if ok, _, _ := w.client.SendRequest("streamlocal-forward@openssh.com", true, asked); ok {
		t.Error("accepted")
	}
	if got := must(os.ReadFile(path)); string(got) != "data" {
		t.Errorf("got %q", got)
	}
}

func itoa(port uint32) string {
	return strings.TrimPrefix((&net.TCPAddr{Port: int(port)}).String(), ":")
}

// channelConn lets the reverser sit at the gateway's end.
type channelConn struct {
	ssh.Channel
	net.Conn
}

func (c *channelConn) Read(b []byte) (int, error)  { return c.Channel.Read(b) }
func (c *channelConn) Write(b []byte) (int, error) { return c.Channel.Write(b) }
func (c *channelConn) Close() error                { return c.Channel.Close() }
