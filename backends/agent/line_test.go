package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// dialled is an agent told of a socket, its stdin and stdout, and what it ends with.
func dialled(t *testing.T, socket string) (*pipes, chan error) {
	t.Helper()
	cmd := agentCommand(t)
	cmd.Args = append(cmd.Args, "dial", socket)
	stdinRead, stdinWrite := must2(os.Pipe())
	stdoutRead, stdoutWrite := must2(os.Pipe())
	cmd.Stdin, cmd.Stdout = stdinRead, stdoutWrite
	must(0, cmd.Start())
	stdinRead.Close()
	stdoutWrite.Close()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { stdinWrite.Close() })
	return &pipes{stdoutRead, stdinWrite}, done
}

func line(t *testing.T) *net.UnixListener {
	t.Helper()
	t.Parallel()
	folder := must(os.MkdirTemp("", "agent")) // a socket's path is short
	t.Cleanup(func() { os.RemoveAll(folder) })
	listener := must(net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(folder, "s"), Net: "unix"}))
	must(0, listener.SetDeadline(time.Now().Add(time.Minute)))
	t.Cleanup(func() { listener.Close() })
	return listener
}

func TestTheLineIsServedAndEachEndOfItEndsAll(t *testing.T) {
	for _, lifeline := range []bool{true, false} {
		t.Run(fmt.Sprint(lifeline), func(t *testing.T) {
			listener := line(t)
			stdio, done := dialled(t, listener.Addr().String())
			conn := must(listener.AcceptUnix())
			session := must(connect(t, conn).NewSession())
			if said := string(must(session.Output("echo here"))); said != "here\n" {
				t.Error(said)
			}
			if lifeline {
				stdio.Close()
			} else {
				conn.Close()
			}
			if err := within(t, func() error { return <-done }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWithoutALineItSaysSoAndSpeaksOnStdio(t *testing.T) {
	t.Parallel()
	stdio, _ := dialled(t, filepath.Join(t.TempDir(), "none"))
	said := make([]byte, len(noLine))
	must(stdio.Read(said))
	if string(said) != noLine {
		t.Errorf("%q", said)
	}
	session := must(connect(t, stdio).NewSession())
	if said := string(must(session.Output("echo here"))); said != "here\n" {
		t.Error(said)
	}
}

func TestALineGivenUpUnusedEndsAll(t *testing.T) {
	listener := line(t)
	_, done := dialled(t, listener.Addr().String())
	must(listener.AcceptUnix()).Close()
	if err := within(t, func() error { return <-done }); err != nil {
		t.Error(err)
	}
}
