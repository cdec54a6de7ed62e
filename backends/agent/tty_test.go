package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

func ptyPayload(term, modes string) []byte {
	return ssh.Marshal(struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{term, 101, 37, 808, 592, modes})
}

// terminal opens a session whose modes turn echo and output processing off, move Ctrl-C to Ctrl-G and set 9600 baud.
func terminal(t *testing.T, w *workspace) *ssh.Session {
	t.Helper()
	modes := "\x35\x00\x00\x00\x00" + "\x46\x00\x00\x00\x00" + "\x01\x00\x00\x00\x07" + "\x80\x00\x00\x25\x80\x00"
	session := w.session()
	if ok, err := session.SendRequest("pty-req", true, ptyPayload("vt220", modes)); !ok || err != nil {
		t.Fatalf("pty-req: %v, %v", ok, err)
	}
	return session
}

func TestATerminalIsCompleteBeforeTheProgramStarts(t *testing.T) {
	w := newWorkspace(t)
	out := string(must(terminal(t, w).Output(
		`echo $TERM; tty; echo $SSH_TTY; stty -a; TEST_ROLE=winsize ` + must(os.Executable()))))
	lines := strings.Split(out, "\n")
	if lines[0] != "vt220" || !strings.HasPrefix(lines[1], "/dev/pts/") || lines[1] != lines[2] {
		t.Errorf("got %q", lines[:3])
	}
	for _, want := range []string{"rows 37; columns 101", "speed 9600 baud", "intr = ^G", " -echo ", "-opost"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	if !strings.Contains(out, "\n101 37 808 592\n") {
		t.Errorf("the size in pixels is not in %s", out)
	}
}

func TestAProgramThatLetsGoOfItsTerminalEndsAsItLikes(t *testing.T) {
	w := newWorkspace(t)
	err := terminal(t, w).Run("exec <&- >&- 2>&-; sleep 0.3; exit 7")
	var ended *ssh.ExitError
	if !errors.As(err, &ended) || ended.Signal() != "" || ended.ExitStatus() != 7 {
		t.Errorf("got %v", err)
	}
}

func TestWithoutATerminalThereIsNone(t *testing.T) {
	w := newWorkspace(t, "SSH_TTY=/dev/pts/99")
	if got := w.output("tty; echo $SSH_TTY"); got != "not a tty\n\n" {
		t.Errorf("got %q", got)
	}
}

func TestATerminalMergesTheStreamsAndTranslatesLines(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	must(0, session.RequestPty("xterm", 24, 80, nil))
	var out, errors bytes.Buffer
	session.Stdout, session.Stderr = &out, &errors
	if err := within(t, func() error { return session.Run("echo out; echo err >&2; exit 3") }); exitStatus(err) != 3 {
		t.Error(err)
	}
	if out.String() != "out\r\nerr\r\n" || errors.Len() != 0 {
		t.Errorf("%q, %q", out.String(), errors.String())
	}
}

func TestResizeReachesTheProgram(t *testing.T) {
	w := newWorkspace(t)
	session := terminal(t, w)
	stdin, stdout := must(session.StdinPipe()), bufio.NewReader(must(session.StdoutPipe()))
	must(0, session.Start("stty size; read line; stty size"))
	if got := must(stdout.ReadString('\n')); got != "37 101\n" {
		t.Errorf("at first: %q", got)
	}
	size := ssh.Marshal(windowSize{132, 50, 0, 0})
	if ok, err := session.SendRequest("window-change", true, size); !ok || err != nil { // input could overtake it
		t.Fatalf("%v, %v", ok, err)
	}
	io.WriteString(stdin, "go\n")
	if got := must(stdout.ReadString('\n')); got != "50 132\n" {
		t.Errorf("after the change: %q", got)
	}
}

func TestTheEndOfInputDoesNotHangATerminalUp(t *testing.T) {
	w := newWorkspace(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(0, syscall.Mkfifo(fifo, 0o600))
	session := terminal(t, w)
	stdin, stdout := must(session.StdinPipe()), bufio.NewReader(must(session.StdoutPipe()))
	must(0, session.Start("echo ready; cat "+fifo+"; exit 2"))
	must(stdout.ReadString('\n'))
	stdin.Close()
	w.alive() // round trips in which a hang-up would have come
	must(0, os.WriteFile(fifo, []byte("late"), 0))
	rest := must(io.ReadAll(stdout))
	if err := within(t, session.Wait); exitStatus(err) != 2 || string(rest) != "late" {
		t.Errorf("%v, %q", err, rest)
	}
}

func TestASignalReachesTheForegroundOfTheTerminal(t *testing.T) {
	w := newWorkspace(t)
	session := terminal(t, w)
	stdout := bufio.NewReader(must(session.StdoutPipe()))
	must(0, session.Start("set -m; sh -c 'echo ready; exec sleep 1000'; echo status $?; exit 0"))
	must(stdout.ReadString('\n'))
	must(0, session.Signal(ssh.SIGTERM))
	rest := within(t, func() string { return string(must(io.ReadAll(stdout))) })
	if !strings.Contains(rest, "status 143\n") {
		t.Errorf("got %q: the shell should have outlived its job", rest)
	}
}

func TestAllOutputOfATerminalArrivesBeforeTheStatus(t *testing.T) {
	w := newWorkspace(t)
	session := terminal(t, w)
	out := within(t, func() []byte { return must(session.Output("head -c 3000000 /dev/zero | tr '\\0' x")) })
	if len(out) != 3000000 {
		t.Errorf("got %d bytes", len(out))
	}
}

func TestIllFormedModesAreRefused(t *testing.T) {
	w := newWorkspace(t)
	if ok, _ := w.session().SendRequest("pty-req", true, ptyPayload("xterm", "\x01\x00")); ok {
		t.Error("accepted")
	}
	if ok, _ := w.session().SendRequest("pty-req", true, ptyPayload("xterm", "\xc8\x01")); !ok {
		t.Error("an opcode from 160 on ends the list, it does not spoil it")
	}
	w.alive()
}
