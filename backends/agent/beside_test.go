package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var guests atomic.Int32

// guest is an agent beside others, at a name that nobody else has, and as an account that nobody else has.
type guest struct {
	name     string
	account  *syscall.Credential
	pid      int
	lifeline *os.File
	stderr   *lockedBuffer
	done     chan error
}

func newGuest(t *testing.T, seconds string, attr *syscall.SysProcAttr) *guest {
	t.Helper()
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("takes accounts of its own")
	}
	number := guests.Add(1)
	own := uint32(1<<29) + uint32(os.Getpid()<<6) + uint32(number)
	g := &guest{
		name:    fmt.Sprintf("@doorward-test-%d-%d", os.Getpid(), number),
		account: &syscall.Credential{Uid: own, Gid: own},
		stderr:  &lockedBuffer{},
		done:    make(chan error, 1),
	}
	cmd := agentCommand(t)
	cmd.Args = append(cmd.Args, "beside", g.name, seconds)
	cmd.SysProcAttr = attr
	cmd.SysProcAttr.Credential = g.account
	cmd.Stderr = g.stderr
	read, write := must2(os.Pipe())
	cmd.Stdin, g.lifeline = read, write
	reachable(cmd)
	must(0, cmd.Start())
	g.pid = cmd.Process.Pid
	read.Close()
	go func() {
		g.done <- cmd.Wait()
		close(g.done)
	}()
	t.Cleanup(func() {
		write.Close()
		<-g.done
	})
	return g
}

// reachable lets any account run the test program, whose own folder is closed to others.
func reachable(cmd *exec.Cmd) {
	program := must(os.Open(cmd.Path))
	cmd.ExtraFiles = append(cmd.ExtraFiles, program)
	cmd.Path = fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles))
}

// comes is `connect` as an exec of the runtime would run it.
func (g *guest) comes(t *testing.T, as *syscall.Credential) (*exec.Cmd, *pipes, *lockedBuffer) {
	t.Helper()
	cmd := agentCommand(t)
	cmd.Args = append(cmd.Args, "connect", g.name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	stderr := &lockedBuffer{}
	cmd.Stderr = stderr
	stdinRead, stdinWrite := must2(os.Pipe())
	stdoutRead, stdoutWrite := must2(os.Pipe())
	cmd.Stdin, cmd.Stdout = stdinRead, stdoutWrite
	reachable(cmd)
	must(0, cmd.Start())
	stdinRead.Close()
	stdoutWrite.Close()
	t.Cleanup(func() { stdinWrite.Close() })
	return cmd, &pipes{stdoutRead, stdinWrite}, stderr
}

func TestBesideAServiceOursIsLetInAndGivesWay(t *testing.T) {
	g := newGuest(t, "60", &syscall.SysProcAttr{})
	_, stream, _ := g.comes(t, g.account)
	client := connect(t, stream)
	said := must(must(client.NewSession()).Output("cat /proc/self/oom_score_adj; cat /proc/$PPID/oom_score_adj"))
	if string(said) != "1000\n1000\n" {
		t.Errorf("%q", said)
	}
	if _, err := net.Dial("unix", g.name); err == nil {
		t.Error("a second one was let in")
	}
	stream.Close()
	if err := within(t, func() error { return <-g.done }); err != nil {
		t.Error(err)
	}
}

// Strangers come first, and are told nothing; ours comes after them.
func TestBesideAServiceNoOtherUserIsLetIn(t *testing.T) {
	g := newGuest(t, "60", &syscall.SysProcAttr{})
	for range 3 {
		stranger := dialGuest(t, g)
		if n, err := stranger.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes for a stranger", n)
		}
	}
	_, stream, _ := g.comes(t, g.account)
	session := must(connect(t, stream).NewSession())
	if said := string(must(session.Output("echo here"))); said != "here\n" {
		t.Error(said)
	}
	if said := g.stderr.String(); strings.Count(said, "not let in: it is another user's") != 3 {
		t.Error(said)
	}
}

func dialGuest(t *testing.T, g *guest) (conn net.Conn) {
	t.Helper()
	eventually(t, "it listens", func() (listens bool) {
		var err error
		conn, err = net.Dial("unix", g.name)
		return err == nil
	})
	must(0, conn.SetReadDeadline(time.Now().Add(patience)))
	return conn
}

func TestBesideAServiceTheSameUserOfAnotherContainerIsNotLetIn(t *testing.T) {
	t.Run("by its process namespace", func(t *testing.T) {
		newGuest(t, "60", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}).refusesItsUser(t)
	})
	t.Run("by its control group", func(t *testing.T) {
		other := controlGroup(t)
		g := newGuest(t, "60", &syscall.SysProcAttr{})
		must(0, os.WriteFile(filepath.Join(other, "cgroup.procs"), fmt.Append(nil, g.pid), 0))
		g.refusesItsUser(t)
	})
}

func (g *guest) refusesItsUser(t *testing.T) {
	t.Helper()
	_, stream, _ := g.comes(t, g.account)
	_, _ = stream.Write([]byte("SSH-2.0-gateway\r\n"))
	if n, err := stream.Read(make([]byte, 1)); err == nil {
		t.Errorf("it was told %d bytes", n)
	}
	eventually(t, "it says so", func() bool {
		return strings.Contains(g.stderr.String(), "not let in: it is of another container")
	})
}

// controlGroup is a fresh one below that of this process, in any hierarchy that can be written to.
func controlGroup(t *testing.T) string {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(string(must(os.ReadFile("/proc/self/cgroup")))), "\n") {
		words := strings.SplitN(line, ":", 3)
		for _, hierarchy := range []string{"", strings.TrimPrefix(words[1], "name=")} {
			path := filepath.Join("/sys/fs/cgroup", hierarchy, words[2], fmt.Sprintf("agent-test-%d", os.Getpid()))
			if os.Mkdir(path, 0o755) == nil {
				t.Cleanup(func() { eventually(t, "it is empty", func() bool { return os.Remove(path) == nil }) })
				if _, err := os.Stat(filepath.Join(path, "cgroup.procs")); err == nil {
					return path
				}
			}
		}
	}
	t.Skip("this machine lets us make no control group")
	return ""
}

func TestWhatListensInTheAgentsPlaceIsNotSpokenTo(t *testing.T) {
	g := &guest{name: fmt.Sprintf("@doorward-test-%d-taken", os.Getpid())}
	listener := must(net.Listen("unix", g.name))
	defer listener.Close()
	if os.Getuid() != 0 {
		t.Skip("takes accounts of its own")
	}
	cmd, stream, stderr := g.comes(t, &syscall.Credential{Uid: 1 << 29, Gid: 1 << 29})
	must(stream.Write([]byte("SSH-2.0-gateway\r\n")))
	taken := must(listener.Accept())
	if n, err := taken.Read(make([]byte, 1)); err == nil {
		t.Errorf("it was told %d bytes", n)
	}
	if err := within(t, cmd.Wait); err == nil || !strings.Contains(stderr.String(), "what listens is not the agent") {
		t.Error(err, stderr)
	}
}

func TestBesideAServiceItsTimeEndsEverything(t *testing.T) {
	g := newGuest(t, "2", &syscall.SysProcAttr{})
	_, stream, _ := g.comes(t, g.account)
	session := must(connect(t, stream).NewSession())
	stdout := bufio.NewReader(must(session.StdoutPipe()))
	must(0, session.Start(`trap "" TERM HUP; sh -c 'setsid sh -c "trap \"\" TERM; echo \$\$; while :; do sleep 1000; done" &'; sleep 1000`))
	pid := must(stdout.ReadString('\n'))
	g.endsOverdue(t)
	if exists(pid) {
		t.Error("a child in a session of its own is still there")
	}
}

func TestBesideAServiceItsTimeIsOverAlsoWhenNobodyCame(t *testing.T) {
	newGuest(t, "1", &syscall.SysProcAttr{}).endsOverdue(t)
}

// endsOverdue wants the very status by which the gateway knows a deadline: gateway/backends/kubernetes/guest.py.
func (g *guest) endsOverdue(t *testing.T) {
	t.Helper()
	err := within(t, func() error { return <-g.done })
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 124 {
		t.Error(err)
	}
	if !strings.Contains(g.stderr.String(), "its time is over") {
		t.Error(g.stderr)
	}
}

// Whatever else ends it is no deadline.
func TestBesideAServiceAnEndInTimeIsStatusZero(t *testing.T) {
	for _, end := range []struct {
		what string
		do   func(*guest) error
	}{
		{"of the lifeline", func(g *guest) error { return g.lifeline.Close() }},
		{"by a signal", func(g *guest) error { return syscall.Kill(g.pid, syscall.SIGTERM) }},
	} {
		t.Run(end.what, func(t *testing.T) {
			g := newGuest(t, "60", &syscall.SysProcAttr{})
			_, stream, _ := g.comes(t, g.account)
			connect(t, stream)
			must(0, end.do(g))
			if err := within(t, func() error { return <-g.done }); err != nil {
				t.Error(err)
			}
		})
	}
}
