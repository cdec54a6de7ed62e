package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"
)

// callbacks are how the programs of one session reach back to its client: to its X server and to its key agent.
// Listeners, cookie and sockets are in a folder of their own, and go with the session's channel.
type callbacks struct {
	folders   *folders
	folder    string
	listeners []net.Listener
	env       map[string]string // over everything else: DISPLAY, XAUTHORITY, SSH_AUTH_SOCK
}

// As sshd counts them: displays below 10 may be real ones.
const (
	firstDisplay = 10
	lastDisplay  = 1009
	displayPort  = 6000
)

// forwardX11 listens for X clients. The cookie is the client's own invention, and is told to nobody but the
// session's programs.
func (s *session) forwardX11(payload []byte) (bool, func()) {
	defer clear(payload)
	var wire struct {
		Single   bool
		Protocol string
		Cookie   string
		Screen   uint32
	}
	if ssh.Unmarshal(payload, &wire) != nil || s.started || s.callbacks.env["DISPLAY"] != "" {
		return false, nil
	}
	cookie, err := hex.DecodeString(wire.Cookie)
	if err != nil || wire.Protocol == "" {
		return false, nil
	}
	defer clear(cookie)
	listener, display, err := listenDisplay()
	if err != nil {
		complain("x11-req: %v", err)
		return false, nil
	}
	authority, err := s.callbacks.write("Xauthority", xauthority(display, wire.Protocol, cookie))
	if err != nil {
		complain("x11-req: %v", err)
		listener.Close()
		return false, nil
	}
	s.callbacks.offer(listener, "DISPLAY", fmt.Sprintf("localhost:%d.%d", display, wire.Screen))
	s.callbacks.env["XAUTHORITY"] = authority
	accepts := s.agent.acceptFrom
	if wire.Single {
		accepts = s.agent.acceptOnce
	}
	go accepts(listener, "x11", func(socket net.Conn) []byte {
		from := socket.RemoteAddr().(*net.TCPAddr)
		return ssh.Marshal(struct {
			Originator string
			Port       uint32
		}{from.IP.String(), uint32(from.Port)})
	})
	return true, nil
}

// forwardKeys listens for those who ask the client's key agent.
func (s *session) forwardKeys(payload []byte) (bool, func()) {
	if len(payload) != 0 || s.started || s.callbacks.env["SSH_AUTH_SOCK"] != "" {
		return false, nil
	}
	folder, err := s.callbacks.private()
	if err != nil {
		complain("auth-agent-req: %v", err)
		return false, nil
	}
	path := filepath.Join(folder, "agent")
	listener, err := listenSocket(path)
	if err != nil {
		complain("auth-agent-req: %v", err)
		return false, nil
	}
	s.callbacks.offer(listener, "SSH_AUTH_SOCK", path)
	go s.agent.acceptFrom(listener, "auth-agent@openssh.com", func(net.Conn) []byte { return nil })
	return true, nil
}

func listenDisplay() (listener net.Listener, display int, err error) {
	for display = firstDisplay; display <= lastDisplay; display++ {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(displayPort+display))
		if listener, err = net.Listen("tcp", address); err == nil {
			return listener, display, nil
		}
	}
	return nil, 0, err
}

// xauthority is the content of an X authority file (libXau, AuDispose.c and its fellows): one entry for clients that
// look for this host's name, which a connection over loopback counts as, and one that fits whatever they look for.
func xauthority(display int, protocol string, cookie []byte) []byte {
	const familyLocal, familyWild = 256, 65535
	host, _ := os.Hostname()
	var file bytes.Buffer
	for _, entry := range []struct {
		family  uint16
		address string
	}{{familyLocal, host}, {familyWild, ""}} {
		_ = binary.Write(&file, binary.BigEndian, entry.family)
		for _, field := range [][]byte{[]byte(entry.address), []byte(strconv.Itoa(display)), []byte(protocol), cookie} {
			_ = binary.Write(&file, binary.BigEndian, uint16(len(field)))
			file.Write(field)
		}
	}
	return file.Bytes()
}

// private is this session's folder, made when first wanted.
func (c *callbacks) private() (string, error) {
	if c.folder != "" {
		return c.folder, nil
	}
	folder, err := c.folders.add()
	c.folder = folder
	return folder, err
}

func (c *callbacks) write(name string, content []byte) (string, error) {
	defer clear(content)
	folder, err := c.private()
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, name)
	return path, os.WriteFile(path, content, 0o600)
}

func (c *callbacks) offer(listener net.Listener, variable, value string) {
	if c.env == nil {
		c.env = map[string]string{}
	}
	c.listeners = append(c.listeners, listener)
	c.env[variable] = value
}

// close ends the listeners; connections that exist live on.
func (c *callbacks) close() {
	for _, listener := range c.listeners {
		listener.Close()
	}
	if c.folder != "" {
		c.folders.remove(c.folder)
	}
}

// folders are the private ones of all sessions, so that none is left behind where the agent's own end does not take
// the file system along.
type folders struct {
	mu    sync.Mutex
	paths map[string]bool
}

func newFolders() *folders { return &folders{paths: map[string]bool{}} }

func (f *folders) add() (string, error) {
	made, err := os.MkdirTemp("", "ssh-") // with 0700
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(made) // sockets are opened without following any
	if err != nil {
		_ = os.Remove(made)
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths[path] = true
	return path, nil
}

func (f *folders) remove(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.paths, path)
	_ = os.RemoveAll(path)
}

func (f *folders) removeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path := range f.paths {
		_ = os.RemoveAll(path)
	}
}
