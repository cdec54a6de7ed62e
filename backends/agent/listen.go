package main

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// forwards are the listeners inside the workspace, by what the gateway has to say to cancel them.
type forwards struct {
	mu        sync.Mutex
	listeners map[string]net.Listener
}

func newForwards() *forwards { return &forwards{listeners: map[string]net.Listener{}} }

func (f *forwards) add(key string, listener net.Listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners[key] = listener
}

// cancel stops listening; connections that exist live on.
func (f *forwards) cancel(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	listener, known := f.listeners[key]
	if known {
		delete(f.listeners, key)
		_ = listener.Close()
	}
	return known
}

func (f *forwards) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, listener := range f.listeners {
		_ = listener.Close()
	}
}

type tcpForward struct {
	Address string
	Port    uint32
}

func (t tcpForward) key() string {
	return "tcp " + net.JoinHostPort(t.Address, strconv.Itoa(int(t.Port)))
}

// host turns the RFC's words for addresses into ours. "localhost" needs no resolver, which an image may lack.
func (t tcpForward) host() string {
	switch t.Address {
	case "*":
		return ""
	case "localhost":
		return "127.0.0.1"
	}
	return t.Address
}

func (a *agent) listenTCP(payload []byte) (bool, []byte) {
	var asked tcpForward
	if ssh.Unmarshal(payload, &asked) != nil || asked.Port > 65535 {
		return false, nil
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(asked.host(), strconv.Itoa(int(asked.Port))))
	if err != nil {
		complain("tcpip-forward: %v", err)
		return false, nil
	}
	bound := asked
	bound.Port = uint32(listener.Addr().(*net.TCPAddr).Port)
	a.forwards.add(bound.key(), listener)
	go a.acceptFrom(listener, "forwarded-tcpip", func(socket net.Conn) []byte {
		from := socket.RemoteAddr().(*net.TCPAddr)
		return ssh.Marshal(struct {
			Address    string // as it was asked for: that is how the gateway knows its own request again
			Port       uint32
			Originator string
			OriginPort uint32
		}{bound.Address, bound.Port, from.IP.String(), uint32(from.Port)})
	})
	if asked.Port != 0 {
		return true, nil
	}
	return true, ssh.Marshal(struct{ Port uint32 }{bound.Port})
}

func (a *agent) cancelTCP(payload []byte) (bool, []byte) {
	var asked tcpForward
	return ssh.Unmarshal(payload, &asked) == nil && a.forwards.cancel(asked.key()), nil
}

func (a *agent) listenUnix(payload []byte) (bool, []byte) {
	var asked struct{ Path string }
	if ssh.Unmarshal(payload, &asked) != nil {
		return false, nil
	}
	listener, err := listenSocket(asked.Path)
	if err != nil {
		complain("streamlocal-forward: %v", err)
		return false, nil
	}
	a.forwards.add("unix "+asked.Path, listener)
	go a.acceptFrom(listener, "forwarded-streamlocal@openssh.com", func(net.Conn) []byte {
		return ssh.Marshal(struct{ Path, Reserved string }{asked.Path, ""})
	})
	return true, nil
}

func (a *agent) cancelUnix(payload []byte) (bool, []byte) {
	var asked struct{ Path string }
	return ssh.Unmarshal(payload, &asked) == nil && a.forwards.cancel("unix "+asked.Path), nil
}

// acceptPause keeps a listener that is out of descriptors from spinning.
const acceptPause = 100 * time.Millisecond

// acceptFrom offers each connection to the gateway as a channel; one that it refuses is closed.
func (a *agent) acceptFrom(listener net.Listener, kind string, describe func(net.Conn) []byte) {
	for a.acceptNext(listener, kind, describe) {
	}
}

// acceptOnce is for a listener that is good for a single connection.
func (a *agent) acceptOnce(listener net.Listener, kind string, describe func(net.Conn) []byte) {
	a.acceptNext(listener, kind, describe)
	listener.Close()
}

// acceptNext says whether there may be another one.
func (a *agent) acceptNext(listener net.Listener, kind string, describe func(net.Conn) []byte) bool {
	socket, err := listener.Accept()
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	if err != nil {
		complain("%s: %v", kind, err)
		time.Sleep(acceptPause)
		return true
	}
	go guard(kind, func() {
		channel, requests, err := a.conn.OpenChannel(kind, describe(socket))
		if err != nil {
			socket.Close()
			return
		}
		bridge(channel, requests, socket)
	})
	return true
}
