package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// served is an agent that serves at a socket, and its lifeline.
func served(t *testing.T) (socket string, lifeline *os.File, done chan error) {
	t.Helper()
	t.Parallel()
	folder := must(os.MkdirTemp("", "agent")) // a socket's path is short
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket = filepath.Join(folder, "agent.sock")
	cmd := agentCommand(t)
	cmd.Args = append(cmd.Args, "serve", socket)
	read, write := must2(os.Pipe())
	cmd.Stdin = read
	must(0, cmd.Start())
	read.Close()
	done = make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { write.Close() })
	return socket, write, done
}

// joined is `connect` as an exec of the runtime would run it, and a client on it.
func joined(t *testing.T, socket string) (*exec.Cmd, *pipes) {
	t.Helper()
	cmd := agentCommand(t)
	cmd.Args = append(cmd.Args, "connect", socket)
	stdinRead, stdinWrite := must2(os.Pipe())
	stdoutRead, stdoutWrite := must2(os.Pipe())
	cmd.Stdin, cmd.Stdout = stdinRead, stdoutWrite
	must(0, cmd.Start())
	stdinRead.Close()
	stdoutWrite.Close()
	t.Cleanup(func() { stdinWrite.Close(); _ = cmd.Wait() })
	return cmd, &pipes{stdoutRead, stdinWrite}
}

func TestAtASocketTheFirstIsServedAndNobodyAfter(t *testing.T) {
	socket, _, done := served(t)
	_, stream := joined(t, socket)
	client := connect(t, stream)
	session := must(client.NewSession())
	if said := string(must(session.Output("echo here"))); said != "here\n" {
		t.Error(said)
	}
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("a second one was let in")
	}
	stream.Close()
	if err := within(t, func() error { return <-done }); err != nil {
		t.Error(err)
	}
}

func TestTheLifelineEndsEverything(t *testing.T) {
	for _, connected := range []bool{false, true} {
		t.Run(fmt.Sprint(connected), func(t *testing.T) {
			socket, lifeline, done := served(t)
			if connected {
				_, stream := joined(t, socket)
				connect(t, stream)
			}
			lifeline.Close()
			if err := within(t, func() error { return <-done }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhoIsNotFetchedEnds(t *testing.T) {
	before := unclaimed
	defer func() { unclaimed = before }()
	unclaimed = 10 * time.Millisecond
	folder := must(os.MkdirTemp("", "agent"))
	defer os.RemoveAll(folder)
	read, write := must2(os.Pipe())
	defer write.Close()
	err := within(t, func() error { return serveAt(filepath.Join(folder, "s"), read, nil) })
	if err == nil || !strings.Contains(err.Error(), "no gateway came") {
		t.Error(err)
	}
}

func TestInstallCopiesTheProgramAndMakesPrivateFolders(t *testing.T) {
	folder := t.TempDir()
	program, private := filepath.Join(folder, "agent"), filepath.Join(folder, "a", "b")
	must(0, install(program, []string{private}))
	if !bytes.Equal(must(os.ReadFile(program)), must(os.ReadFile("/proc/self/exe"))) {
		t.Error("not a copy")
	}
	if mode := must(os.Stat(program)).Mode(); mode != 0o555 {
		t.Error(mode)
	}
	if mode := must(os.Stat(private)).Mode().Perm(); mode != 0o700 {
		t.Error(mode)
	}
	if err := install(program, nil); err != nil {
		t.Error(err)
	}
}

func TestReachTellsWhetherSomethingAnswers(t *testing.T) {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	address := listener.Addr().String()
	listener.Close()
	cmd := agentCommand(t)
	cmd.Args = append(cmd.Args, "answer", address)
	lifeline := must(cmd.StdinPipe())
	must(0, cmd.Start())
	ask := func() string {
		asking := agentCommand(t)
		asking.Args = append(asking.Args, "reach", address)
		return strings.TrimSpace(string(must(asking.Output())))
	}
	deadline := time.Now().Add(patience)
	for ask() != "reached" {
		if time.Now().After(deadline) {
			t.Fatal("not reached")
		}
	}
	lifeline.Close()
	must(0, cmd.Wait())
	if said := ask(); said != "unreached" {
		t.Error(said)
	}
}
