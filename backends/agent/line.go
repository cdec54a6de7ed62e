package main

import (
	"io"
	"net"
)

// noLine is a line that an SSH client skips before the server's version (RFC 4253 section 4.2).
const noLine = "no line\r\n"

// serveOver speaks over a socket that the runtime has bound in, past an engine that would copy every byte; stdin is the
// lifeline alone then. Where nobody is to be had there it says so, and speaks on stdin and stdout.
func serveOver(path string, in io.Reader, out io.WriteCloser, agent *agent) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		if _, err := io.WriteString(out, noLine); err != nil {
			return err
		}
		return agent.serve(in, out)
	}
	defer conn.Close()
	return whileHeld(in, func() error { return agent.serve(conn, conn) })
}

// whileHeld returns when serve does, or when the lifeline ends.
func whileHeld(lifeline io.Reader, serve func() error) error {
	let := make(chan error, 2)
	go func() {
		_, err := io.Copy(io.Discard, lifeline)
		let <- err
	}()
	go guard("connection", func() { let <- serve() }, func() { let <- nil })
	return <-let
}
