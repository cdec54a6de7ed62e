package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Where a runtime would log our stdout, the stream is a socket inside, and stdin is the lifeline alone: `serve` is the
// first process, `connect` joins the socket to the streams of an exec.

// unclaimed is how long `serve` waits for its gateway, and `connect` for the socket to appear.
var unclaimed = time.Minute

// serveAt serves the first who connects to the socket, and nobody after: programs that could try do not run before.
// It returns when that conversation or the lifeline ends, or when nobody came.
func serveAt(path string, lifeline io.Reader, agent *agent) error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer listener.Close() // and the file goes with it
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	return whileHeld(lifeline, func() error { return serveFirst(listener, anybody, agent) })
}

func serveFirst(listener *net.UnixListener, mayCome func(*net.UnixConn) error, agent *agent) error {
	if err := listener.SetDeadline(time.Now().Add(unclaimed)); err != nil {
		return err
	}
	conn, err := acceptFirst(listener, mayCome)
	listener.Close()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no gateway came within %v", unclaimed)
	}
	if err != nil {
		return nil // closed, since the lifeline has ended
	}
	return agent.serve(conn, conn)
}

func acceptFirst(listener *net.UnixListener, mayCome func(*net.UnixConn) error) (*net.UnixConn, error) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return nil, err
		}
		refusal := mayCome(conn)
		if refusal == nil {
			return conn, nil
		}
		complain("a connection is not let in: %v", refusal)
		conn.Close()
	}
}

// join copies between the socket and in and out, until the agent has ended the conversation.
func join(path string, in io.Reader, out io.Writer) error {
	conn, err := dialWaiting(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if strings.HasPrefix(path, "@") { // abstract: a name that anybody can have taken first
		if err := isOurs(conn); err != nil {
			return fmt.Errorf("what listens is not the agent: %w", err)
		}
	}
	go func() {
		_, _ = io.CopyBuffer(onlyWriter{conn}, onlyReader{in}, make([]byte, 256<<10)) // either way its end is the end
		_ = conn.CloseWrite()
	}()
	_, err = io.CopyBuffer(onlyWriter{out}, onlyReader{conn}, make([]byte, 256<<10))
	return err
}

// onlyReader and onlyWriter hide the short ways of io.Copy (splice), which move a pipe's 64 KiB at a time at best.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

func dialWaiting(path string) (*net.UnixConn, error) {
	for deadline := time.Now().Add(unclaimed); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil || time.Now().After(deadline) {
			return conn, err
		}
	}
}

// install copies this program into a folder, and makes empty folders that are the calling user's alone: what an init
// container does for a workspace whose volumes come as root's.
func install(program string, private []string) error {
	for _, folder := range private {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	partial := filepath.Join(filepath.Dir(program), ".new")
	copied, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o555)
	if err != nil {
		return err
	}
	if _, err := io.Copy(copied, self); err != nil {
		return err
	}
	if err := copied.Close(); err != nil {
		return err
	}
	return os.Rename(partial, program)
}
