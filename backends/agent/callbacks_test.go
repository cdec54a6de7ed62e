package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const cookie = "00112233445566778899aabbccddeeff"

type x11Request struct {
	Single           bool
	Protocol, Cookie string
	Screen           uint32
}

// granted runs `command` in a session for which `kind` was asked before, and returns its first line.
func granted(t *testing.T, w *workspace, kind string, payload any, command string) (*ssh.Session, string) {
	t.Helper()
	session := w.session()
	var body []byte
	if payload != nil {
		body = ssh.Marshal(payload)
	}
	if ok, err := session.SendRequest(kind, true, body); !ok || err != nil {
		t.Fatalf("%s: %v, %v", kind, ok, err)
	}
	out := must(session.StdoutPipe())
	must(session.StdinPipe()) // held open, so that `cat` goes on
	if err := session.Start(command); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4096)
	n := within(t, func() int { return must(out.Read(line)) })
	return session, strings.TrimSpace(string(line[:n]))
}

func answerWithReverser(t *testing.T, channels <-chan ssh.NewChannel, inside net.Conn) ssh.NewChannel {
	t.Helper()
	opening := within(t, func() ssh.NewChannel { return <-channels })
	channel, requests, err := opening.Accept()
	must(0, err)
	go ssh.DiscardRequests(requests)
	go reverser(&channelConn{channel, inside})
	return opening
}

func TestX11ReachesTheClientWithTheCookieInAFileOfItsOwn(t *testing.T) {
	w := newWorkspace(t)
	channels := w.client.HandleChannelOpen("x11")
	asked := x11Request{false, "MIT-MAGIC-COOKIE-1", cookie, 1}
	session, said := granted(t, w, "x11-req", asked, "echo $DISPLAY $XAUTHORITY; cat")
	display, authority, _ := strings.Cut(said, " ")
	var number, screen int
	if _, err := fmt.Sscanf(display, "localhost:%d.%d", &number, &screen); err != nil || screen != 1 || number < 10 {
		t.Fatalf("DISPLAY is %q", display)
	}
	file := must(os.ReadFile(authority))
	if bytes.Count(file, must(hex.DecodeString(cookie))) != 2 || binary.BigEndian.Uint16(file) != 256 {
		t.Errorf("XAUTHORITY holds %q", file)
	}
	folder := must(os.Stat(filepath.Dir(authority)))
	if mode := must(os.Stat(authority)).Mode().Perm(); mode != 0o600 || folder.Mode().Perm() != 0o700 {
		t.Errorf("modes %o in %o", mode, folder.Mode().Perm())
	}
	for range 2 {
		inside := must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(6000+number))))
		opening := answerWithReverser(t, channels, inside)
		port := uint32(inside.LocalAddr().(*net.TCPAddr).Port)
		if want := ssh.Marshal(tcpRequest{"127.0.0.1", port}); string(opening.ExtraData()) != string(want) {
			t.Errorf("got %q", opening.ExtraData())
		}
		reversed(t, inside.(*net.TCPConn))
	}
	session.Close()
	eventually(t, "nothing listens and nothing is left", func() bool {
		_, left := os.Stat(filepath.Dir(authority))
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(6000+number)))
		if err == nil {
			conn.Close()
		}
		return errors.Is(left, os.ErrNotExist) && errors.Is(err, unix.ECONNREFUSED)
	})
	if strings.Contains(w.stderr.String(), cookie) {
		t.Error("the cookie is in the log")
	}
}

func TestX11ForASingleConnectionListensOnce(t *testing.T) {
	w := newWorkspace(t)
	channels := w.client.HandleChannelOpen("x11")
	asked := x11Request{true, "MIT-MAGIC-COOKIE-1", cookie, 0}
	_, display := granted(t, w, "x11-req", asked, "echo $DISPLAY; cat")
	var number int
	must(fmt.Sscanf(display, "localhost:%d.0", &number))
	address := net.JoinHostPort("127.0.0.1", fmt.Sprint(6000+number))
	inside := must(net.Dial("tcp", address))
	answerWithReverser(t, channels, inside)
	eventually(t, "it listens no more", func() bool {
		_, err := net.Dial("tcp", address)
		return err != nil
	})
	reversed(t, inside.(*net.TCPConn))
}

func TestEverySessionHasADisplayOfItsOwn(t *testing.T) {
	w := newWorkspace(t)
	asked := x11Request{false, "MIT-MAGIC-COOKIE-1", cookie, 0}
	_, one := granted(t, w, "x11-req", asked, "echo $DISPLAY; cat")
	_, other := granted(t, w, "x11-req", asked, "echo $DISPLAY; cat")
	if one == other {
		t.Errorf("both have %q", one)
	}
	if got := w.output("echo ${DISPLAY-none} ${XAUTHORITY-none} ${SSH_AUTH_SOCK-none}"); got != "none none none\n" {
		t.Errorf("a session that did not ask has %q", got)
	}
}

func TestTheKeyAgentIsAskedOverAPrivateSocket(t *testing.T) {
	w := newWorkspace(t)
	channels := w.client.HandleChannelOpen("auth-agent@openssh.com")
	session, path := granted(t, w, "auth-agent-req@openssh.com", nil, "echo $SSH_AUTH_SOCK; cat")
	folder, socket := must(os.Stat(filepath.Dir(path))), must(os.Stat(path))
	if folder.Mode().Perm() != 0o700 || socket.Mode().Perm() != 0o600 {
		t.Errorf("modes %o in %o", socket.Mode().Perm(), folder.Mode().Perm())
	}
	inside := must(net.Dial("unix", path))
	if opening := answerWithReverser(t, channels, inside); len(opening.ExtraData()) != 0 {
		t.Errorf("got %q", opening.ExtraData())
	}
	reversed(t, inside.(*net.UnixConn))
	session.Close()
	eventually(t, "nothing is left", func() bool {
		_, err := os.Stat(folder.Name())
		_, left := os.Stat(filepath.Dir(path))
		return err != nil && left != nil
	})
}

func TestPrivateFoldersGoWithTheConversation(t *testing.T) {
	w := newWorkspace(t)
	_, path := granted(t, w, "auth-agent-req@openssh.com", nil, "echo $SSH_AUTH_SOCK; cat")
	must(os.Stat(path))
	w.stop()
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestIllFormedCallbacksAreRefused(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	for note, payload := range map[string][]byte{
		"nothing":   nil,
		"no hex":    ssh.Marshal(x11Request{false, "MIT-MAGIC-COOKIE-1", "xyz", 0}),
		"odd":       ssh.Marshal(x11Request{false, "MIT-MAGIC-COOKIE-1", "123", 0}),
		"no name":   ssh.Marshal(x11Request{false, "", cookie, 0}),
		"more":      append(ssh.Marshal(x11Request{false, "MIT-MAGIC-COOKIE-1", cookie, 0}), 0),
		"truncated": ssh.Marshal(x11Request{false, "MIT-MAGIC-COOKIE-1", cookie, 0})[:20],
	} {
		if ok, _ := session.SendRequest("x11-req", true, payload); ok {
			t.Errorf("%s: granted", note)
		}
	}
	if ok, _ := session.SendRequest("auth-agent-req@openssh.com", true, []byte("x")); ok {
		t.Error("granted with a payload")
	}
	for _, want := range []bool{true, false} { // the second one has one already
		if ok, _ := session.SendRequest("auth-agent-req@openssh.com", true, nil); ok != want {
			t.Errorf("got %v, want %v", ok, want)
		}
	}
	must(session.StdinPipe())
	must(0, session.Start("cat"))
	asked := ssh.Marshal(x11Request{false, "MIT-MAGIC-COOKIE-1", cookie, 0})
	if ok, _ := session.SendRequest("x11-req", true, asked); ok {
		t.Error("granted after the start: the program would not know")
	}
	w.alive()
}

func TestSocketsAreReachedWithoutALinkOnTheWay(t *testing.T) {
	w := newWorkspace(t)
	real := t.TempDir()
	listen(t, "unix", filepath.Join(real, "socket"))
	folder, link := filepath.Join(t.TempDir(), "folder"), filepath.Join(t.TempDir(), "link")
	must(0, os.Symlink(real, folder))
	must(0, os.Symlink(filepath.Join(real, "socket"), link))
	for _, path := range []string{
		filepath.Join(folder, "socket"), link, "socket", "@socket", "", "/", real + "/../" + filepath.Base(real) + "/socket",
	} {
		if conn, err := w.client.Dial("unix", path); err == nil {
			conn.Close()
			t.Errorf("connected to %q", path)
		}
	}
	reversed(t, must(w.client.Dial("unix", filepath.Join(real, "socket"))).(halfCloser))
	for _, path := range []string{filepath.Join(folder, "new"), link, "new", "@new", "", "/", real + "/./new"} {
		asked := ssh.Marshal(struct{ Path string }{path})
		if ok, _, _ := w.client.SendRequest("streamlocal-forward@openssh.com", true, asked); ok {
			t.Errorf("listens on %q", path)
		}
	}
	w.alive()
}

func TestAListenerOfASocketFileTakesItsFileAlongWhenTheConversationEnds(t *testing.T) {
	w := newWorkspace(t)
	path := filepath.Join(t.TempDir(), "socket")
	asked := ssh.Marshal(struct{ Path string }{path})
	if ok, _, _ := w.client.SendRequest("streamlocal-forward@openssh.com", true, asked); !ok {
		t.Fatal("refused")
	}
	conn := must(net.Dial("unix", path))
	if got := within(t, func() string { return string(must(io.ReadAll(conn))) }); got != "" {
		t.Errorf("got %q", got)
	}
	w.stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}
