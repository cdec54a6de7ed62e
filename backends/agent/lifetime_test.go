package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// stubborn starts a program that ignores TERM and HUP, with an orphan in a session of its own that does so too, and
// returns the pids of both.
func stubborn(w *workspace) []string {
	session := w.session()
	stdout := bufio.NewReader(must(session.StdoutPipe()))
	must(0, session.Start(`trap "" TERM HUP INT; echo $$
		sh -c 'setsid sh -c "echo \$\$; while :; do sleep 1000; done" &'
		while :; do sleep 1000; done`))
	return []string{must(stdout.ReadString('\n')), must(stdout.ReadString('\n'))}
}

func TestTheEndOfStdinEndsEverything(t *testing.T) {
	w := newWorkspace(t)
	pids := stubborn(w)
	w.stop()
	for _, pid := range pids {
		if exists(pid) {
			t.Errorf("%s is still there", strings.TrimSpace(pid))
		}
	}
}

func TestSignalsEndEverythingToo(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			w := newWorkspace(t, "TEST_GRACE=1ms")
			pids := stubborn(w)
			must(0, w.cmd.Process.Signal(sig))
			if err := within(t, func() error { return <-w.done }); err != nil {
				t.Error(err)
			}
			w.done = nil
			for _, pid := range pids {
				if exists(pid) {
					t.Errorf("%s is still there", strings.TrimSpace(pid))
				}
			}
		})
	}
}

func TestTheGraceIsForThoseWhoUseIt(t *testing.T) {
	w := newWorkspace(t, "TEST_GRACE=1h", "TEST_HANGUP=1h")
	session := w.session()
	stdout := bufio.NewReader(must(session.StdoutPipe()))
	file, fifo := filepath.Join(t.TempDir(), "goodbye"), filepath.Join(t.TempDir(), "fifo")
	must(0, syscall.Mkfifo(fifo, 0o600))
	must(0, session.Start("trap 'echo bye > "+file+"; exit' TERM; trap '' HUP; echo $$; kill -STOP $$; read x <> "+fifo))
	pid := strings.TrimSpace(must(stdout.ReadString('\n')))
	eventually(t, "the program has stopped", func() bool {
		return strings.Contains(string(must(os.ReadFile("/proc/"+pid+"/stat"))), ") T ")
	})
	must(0, w.cmd.Process.Signal(syscall.SIGTERM))
	if err := within(t, func() error { return <-w.done }); err != nil { // not the hour: everybody has gone before
		t.Error(err)
	}
	w.done = nil
	if got, _ := os.ReadFile(file); string(got) != "bye\n" {
		t.Errorf("the program could not say good-bye: %q", got)
	}
}

func TestOrphansAreReapedAndStealNoStatus(t *testing.T) {
	w := newWorkspace(t)
	_, _, err := w.run(`for i in 1 2 3 4 5 6 7 8 9; do sh -c 'sh -c "exit 9" &'; done; exit 5`)
	if exitStatus(err) != 5 {
		t.Error(err)
	}
	pid := w.cmd.Process.Pid
	eventually(t, "no child is left, dead or alive", func() bool { return len(descendants(pid)) == 0 })
}

func TestAnOrphanComesToTheAgent(t *testing.T) {
	w := newWorkspace(t)
	orphan := w.output(`sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'`)
	parent, _ := parentOf("/proc/" + strings.TrimSpace(orphan) + "/stat")
	if parent != w.cmd.Process.Pid {
		t.Errorf("its parent is %d", parent)
	}
	w.stop()
	if exists(orphan) {
		t.Error("it outlived the workspace")
	}
}

func TestAsFirstProcessOfANamespace(t *testing.T) {
	w := startAgent(t, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}, "TEST_GRACE=1h", "TEST_HANGUP=1h")
	if got := w.output("echo $PPID"); got != "1\n" {
		t.Fatalf("the agent's pid is %s", got)
	}
	session := w.session()
	stdout := bufio.NewReader(must(session.StdoutPipe()))
	file := filepath.Join(t.TempDir(), "goodbye")
	// It is heard once the shell waits, and misses no signal.
	must(0, session.Start(`sh -c 'setsid sh -c "trap \"echo bye > `+file+`; exit\" TERM; { sleep 0.1; echo ready; exec sleep 20; } & wait" &'`))
	must(stdout.ReadString('\n'))
	w.stop() // without kill(-1) the orphan would not hear of it
	if got, _ := os.ReadFile(file); string(got) != "bye\n" {
		t.Errorf("the orphan could not say good-bye: %q", got)
	}
}

func TestManySessionsAtOnce(t *testing.T) {
	w := newWorkspace(t)
	results := make(chan string)
	for i := range 40 {
		session := w.session()
		go func() {
			out, err := session.Output(fmt.Sprintf("echo %d; exit %d", i, i))
			results <- fmt.Sprintf("%s%d", out, exitStatus(err))
			session.Close()
		}()
		_ = i
	}
	seen := map[string]bool{}
	for range 40 {
		seen[within(t, func() string { return <-results })] = true
	}
	for i := range 40 {
		if !seen[fmt.Sprintf("%d\n%d", i, i)] {
			t.Errorf("session %d has somebody else's fate: %v", i, seen)
		}
	}
}
