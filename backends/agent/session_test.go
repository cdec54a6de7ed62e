package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestExitStatusIsTheProgramsOwn(t *testing.T) {
	w := newWorkspace(t)
	for command, want := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 42": 42, "exit 255": 255, "": 0, " ": 0,
		"no-such-command-anywhere": 127, "/no/such/path": 127, "/bin/true; exit 3": 3,
	} {
		if _, _, err := w.run(command); exitStatus(err) != want {
			t.Errorf("%q: %v, want status %d", command, err, want)
		}
	}
}

func TestDeathBySignalIsSaidAsSuch(t *testing.T) {
	w := newWorkspace(t)
	for command, want := range map[string]string{
		"kill -TERM $$": "TERM", "kill -KILL $$": "KILL", "kill -USR2 $$": "USR2",
		"kill -16 $$": "STKFLT@doorward", "kill -40 $$": "40@doorward",
	} {
		if _, _, err := w.run(command); exitSignal(err) != want {
			t.Errorf("%q: %v, want signal %s", command, err, want)
		}
	}
}

func TestCommandLineReachesTheShellByteForByte(t *testing.T) {
	w := newWorkspace(t)
	var all []byte
	for b := 1; b < 256; b++ {
		all = append(all, byte(b))
	}
	quoted := "'" + strings.ReplaceAll(string(all), "'", `'\''`) + "'"
	if got := w.output("printf %s " + quoted); got != string(all) {
		t.Errorf("got %q", got)
	}
	if got := w.output("/bin/echo a; x=1 && echo $x | tr 1 2\necho 'é\n'"); got != "a\n2\né\n\n" {
		t.Errorf("a path in front: got %q", got)
	}
}

func TestACommandWithNULIsRefused(t *testing.T) {
	w := newWorkspace(t)
	if err := w.session().Start("echo \x00"); err == nil {
		t.Error("accepted")
	}
	w.alive()
}

func TestShellIsALoginShellAndExecIsNot(t *testing.T) {
	w := newWorkspace(t)
	if got := w.output("shopt -q login_shell || echo $0: none"); got != "bash: none\n" {
		t.Errorf("exec in bash: %q", got)
	}
	w.mustSetup(`{"shell": "/bin/sh"}`)
	if got := w.output("echo $0"); got != "sh\n" {
		t.Errorf("exec: argv0 is %q", got)
	}
	session := w.session()
	var out bytes.Buffer
	session.Stdin, session.Stdout = strings.NewReader("echo $0; exit 6\n"), &out
	if err := session.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := within(t, session.Wait); exitStatus(err) != 6 || out.String() != "-sh\n" {
		t.Errorf("shell: %v, %q", err, out.String())
	}
}

func TestAnImageWithoutAShellSaysSo(t *testing.T) {
	w := newWorkspace(t, "TEST_NO_SHELL=1")
	stdout, stderr, err := w.run("echo hello")
	if exitStatus(err) != 127 || stdout != "" || stderr != noShell {
		t.Errorf("%v, %q, %q", err, stdout, stderr)
	}
}

func TestAShellThatPolicyNamesIsNotReplacedByAnother(t *testing.T) {
	w := newWorkspace(t)
	w.mustSetup(`{"shell": "/no/such/shell"}`)
	_, stderr, err := w.run("echo hello")
	if exitStatus(err) != 127 || stderr != "doorward: cannot start /no/such/shell: no such file or directory\n" {
		t.Errorf("%v, %q", err, stderr)
	}
}

func TestStderrStaysApart(t *testing.T) {
	w := newWorkspace(t)
	stdout, stderr, err := w.run("echo out; echo err >&2")
	if err != nil || stdout != "out\n" || stderr != "err\n" {
		t.Errorf("%v, %q, %q", err, stdout, stderr)
	}
}

func TestOutputAndStatusArriveAfterTheEndOfInput(t *testing.T) {
	w := newWorkspace(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	session := w.session()
	stdin, stdout := must(session.StdinPipe()), bufio.NewReader(must(session.StdoutPipe()))
	if err := session.Start("sort; echo eof; cat " + fifo + "; exit 5"); err != nil {
		t.Fatal(err)
	}
	io.WriteString(stdin, "b\na\n")
	stdin.Close()
	for _, want := range []string{"a\n", "b\n", "eof\n"} {
		if got, _ := stdout.ReadString('\n'); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	if err := os.WriteFile(fifo, []byte("late"), 0); err != nil { // the input's end is long past now
		t.Fatal(err)
	}
	rest := must(io.ReadAll(stdout))
	if err := within(t, session.Wait); exitStatus(err) != 5 || string(rest) != "late" {
		t.Errorf("%v, %q", err, rest)
	}
}

func TestTheEndOfOutputIsToldBeforeTheEndOfTheProgram(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	stdin, stdout := must(session.StdinPipe()), must(session.StdoutPipe())
	if err := session.Start("echo out; exec >&- 2>&-; read line; exit 4"); err != nil {
		t.Fatal(err)
	}
	if got := within(t, func() string { return string(must(io.ReadAll(stdout))) }); got != "out\n" {
		t.Errorf("got %q", got)
	}
	stdin.Close() // only now may the program end
	if err := within(t, session.Wait); exitStatus(err) != 4 {
		t.Error(err)
	}
}

func TestInputThatNobodyWantsDoesNotStopTheClient(t *testing.T) {
	w := newWorkspace(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(0, syscall.Mkfifo(fifo, 0o600))
	session := w.session()
	stdin, stdout := must(session.StdinPipe()), must(session.StdoutPipe())
	if err := session.Start("exec <&-; echo closed; cat " + fifo); err != nil {
		t.Fatal(err)
	}
	line := must(bufio.NewReader(stdout).ReadString('\n'))
	must(0, within(t, func() error { // more than the window: somebody has to take it
		_, err := stdin.Write(make([]byte, 8<<20))
		return err
	}))
	must(0, os.WriteFile(fifo, nil, 0)) // only now may the program end
	if err := within(t, session.Wait); err != nil || line != "closed\n" {
		t.Errorf("%v, %q", err, line)
	}
}

func TestABackgroundJobKeepsNothingAlive(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal %v", terminal), func(t *testing.T) {
			w := newWorkspace(t)
			session := w.session()
			if terminal {
				must(0, session.RequestPty("xterm", 24, 80, nil))
			}
			got := within(t, func() string { return string(must(session.Output("trap '' HUP; sleep 1000 & echo $!; exit 0"))) })
			if !exists(got) {
				t.Error("the job was killed, which is more than its session's end means")
			}
		})
	}
}

func TestABackgroundJobThatWritesOnAndOnKeepsNothingAliveEither(t *testing.T) {
	w := newWorkspace(t, "TEST_FLOW=50ms")
	session := w.session()
	session.Stdout = io.Discard
	if err := within(t, func() error { return session.Run("yes & exit 8") }); exitStatus(err) != 8 {
		t.Error(err)
	}
}

func TestManyMegabytesBothWaysUnderSlowReaders(t *testing.T) {
	w := newWorkspace(t)
	const size = 64 << 20
	sent, received := sha256.New(), sha256.New()
	session := w.session()
	stdin, stdout := must(session.StdinPipe()), must(session.StdoutPipe())
	// The program reads in small pieces, and so do we, none of them aligned to a packet.
	if err := session.Start("dd bs=30011 status=none"); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.CopyBuffer(io.MultiWriter(sent, stdin), io.LimitReader(rand.Reader, size), make([]byte, 50021))
		stdin.Close()
	}()
	n := within(t, func() int64 {
		n, _ := io.CopyBuffer(struct{ io.Writer }{received}, struct{ io.Reader }{stdout}, make([]byte, 20011))
		return n
	})
	if err := within(t, session.Wait); err != nil || n != size {
		t.Fatalf("%v after %d bytes", err, n)
	}
	if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		t.Error("the bytes have changed")
	}
}

func TestSignalsReachTheProcessGroup(t *testing.T) {
	w := newWorkspace(t)
	for name := range signals {
		session := w.session()
		stdout := must(session.StdoutPipe())
		// Not in bash, which ignores QUIT always.
		if err := session.Start(`exec sh -c 'sh -c "echo \$\$; exec sleep 1000"; true'`); err != nil {
			t.Fatal(err)
		}
		child := must(bufio.NewReader(stdout).ReadString('\n'))
		must(0, session.Signal(ssh.Signal(name))) // wants no reply, which the end of the channel could overtake
		if err := within(t, session.Wait); exitSignal(err) != name {
			t.Errorf("%s: %v", name, err)
		}
		eventually(t, "the shell's child is gone too", func() bool { return !exists(child) })
	}
}

func TestAnUnknownSignalIsRefused(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	must(session.StdinPipe())
	must(0, session.Start("cat"))
	for _, name := range []string{"SIGTERM", "STOP", "9", ""} {
		if ok, _ := session.SendRequest("signal", true, ssh.Marshal(struct{ Name string }{name})); ok {
			t.Errorf("%q was accepted", name)
		}
	}
}

func TestAClosedChannelHangsTheProgramUp(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal %v", terminal), func(t *testing.T) {
			w := newWorkspace(t, "TEST_HANGUP=1h") // so that only HUP can have done it
			session := w.session()
			if terminal {
				must(0, session.RequestPty("xterm", 24, 80, nil))
			}
			stdout := bufio.NewReader(must(session.StdoutPipe()))
			must(0, session.Start("sleep 1000 & echo $!; echo $$; wait"))
			child, leader := must(stdout.ReadString('\n')), must(stdout.ReadString('\n'))
			session.Close()
			eventually(t, "both have gone", func() bool { return !exists(child) && !exists(leader) })
		})
	}
}

func TestAClosedChannelKillsWhatIgnoresTheHangUp(t *testing.T) {
	w := newWorkspace(t, "TEST_HANGUP=1ms")
	session := w.session()
	stdout := bufio.NewReader(must(session.StdoutPipe()))
	must(0, session.Start("trap '' HUP; sleep 1000 >/dev/null & echo $!; echo $$; wait"))
	child, leader := must(stdout.ReadString('\n')), must(stdout.ReadString('\n'))
	session.Close()
	eventually(t, "both have gone", func() bool { return !exists(child) && !exists(leader) })
}

func TestAClientThatWantsNoMoreOutputGivesTheProgramASIGPIPE(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	stdout, stderr := must(session.StdoutPipe()), must(session.StderrPipe())
	must(0, session.Start("yes; echo ended >&2; exit 3"))
	must(io.ReadFull(stdout, make([]byte, 2)))
	must(session.SendRequest("eow@openssh.com", false, nil))
	go io.Copy(io.Discard, stdout)
	message := within(t, func() string { return string(must(io.ReadAll(stderr))) })
	if err := within(t, session.Wait); exitStatus(err) != 3 || message != "ended\n" {
		t.Errorf("%v, %q", err, message)
	}
}

func TestOneProgramPerSession(t *testing.T) {
	w := newWorkspace(t)
	session := w.session()
	stdin := must(session.StdinPipe())
	must(0, session.Start("cat"))
	for _, request := range []string{"shell", "exec", "subsystem", "pty-req", "env"} {
		payload := map[string][]byte{
			"exec": ssh.Marshal(struct{ S string }{"true"}), "subsystem": ssh.Marshal(struct{ S string }{"sftp"}),
			"pty-req": ptyPayload("xterm", ""), "env": ssh.Marshal(struct{ N, V string }{"A", "b"}),
		}[request]
		if ok, _ := session.SendRequest(request, true, payload); ok {
			t.Errorf("a second %s was accepted", request)
		}
	}
	stdin.Close()
	if err := within(t, session.Wait); err != nil {
		t.Error(err)
	}
}
