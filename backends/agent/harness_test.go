package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the agent too: every test talks to a real process over real pipes, and the race
// detector sees both sides.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_ROLE") {
	case "agent":
		actAsAgent()
	case "winsize":
		size, _ := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		fmt.Println(size.Col, size.Row, size.Xpixel, size.Ypixel)
	default:
		os.Exit(m.Run())
	}
}

// actAsAgent is main, with the limits that a test asks for and a few doors into the process.
func actAsAgent() {
	for name, limit := range map[string]*time.Duration{
		"TEST_GRACE": &grace, "TEST_HANGUP": &hangUpGrace, "TEST_FLOW": &flowLimit,
	} {
		if value, err := time.ParseDuration(os.Getenv(name)); err == nil {
			*limit = value
		}
	}
	if os.Getenv("TEST_NO_SHELL") != "" {
		usualShells = nil
	}
	if os.Getenv("TEST_NO_PATH") != "" {
		os.Unsetenv("PATH")
	}
	openers["panic@test"] = func(*agent, ssh.NewChannel) { panic("as the test wanted") }
	globals["panic@test"] = func(*agent, []byte) (bool, []byte) { panic("as the test wanted") }
	globals["dumpable@test"] = func(*agent, []byte) (bool, []byte) {
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		return err == nil, []byte{byte(dumpable)}
	}
	if most, err := strconv.ParseUint(os.Getenv("TEST_NPROC"), 10, 64); err == nil {
		limitProcesses(most)
	}
	os.Unsetenv("TEST_ROLE")
	main()
}

// limitProcesses lets this process, as a user whom nobody else is, have so many processes and threads.
func limitProcesses(most uint64) {
	nobodyElse := 1<<30 + os.Getpid()
	must(0, unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: most, Max: most}))
	must(0, syscall.Setresuid(nobodyElse, nobodyElse, nobodyElse))
}

// workspace is a running agent and a client connected to it.
type workspace struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *lockedBuffer
	client *ssh.Client
	done   chan error
}

// newWorkspace starts an agent with an environment of its own: PATH, HOME in a fresh folder, and what is given.
func newWorkspace(t *testing.T, env ...string) *workspace {
	t.Helper()
	w := startAgent(t, nil, env...)
	return w
}

func startAgent(t *testing.T, attr *syscall.SysProcAttr, env ...string) *workspace {
	t.Helper()
	t.Parallel()
	w := &workspace{t: t, stderr: &lockedBuffer{}, done: make(chan error, 1)}
	w.cmd = agentCommand(t, env...)
	w.cmd.SysProcAttr = attr
	w.cmd.Stderr = w.stderr
	// os.Pipe and not StdoutPipe, whose Wait would close it under the reader.
	stdinRead, stdinWrite := must2(os.Pipe())
	stdoutRead, stdoutWrite := must2(os.Pipe())
	w.cmd.Stdin, w.cmd.Stdout, w.stdin = stdinRead, stdoutWrite, stdinWrite
	if err := w.cmd.Start(); err != nil {
		if attr != nil && errors.Is(err, syscall.EPERM) {
			t.Skip("this machine lets us make no namespaces")
		}
		t.Fatal(err)
	}
	stdinRead.Close()
	stdoutWrite.Close()
	go func() { w.done <- w.cmd.Wait() }()
	t.Cleanup(func() { w.stop() })
	w.client = connect(t, &pipes{stdoutRead, stdinWrite})
	return w
}

func agentCommand(t *testing.T, env ...string) *exec.Cmd {
	cmd := exec.Command(must(os.Executable()))
	cmd.Env = append([]string{"TEST_ROLE=agent", "GORACE=atexit_sleep_ms=0", "PATH=" + defaultPath, "HOME=" + t.TempDir()}, env...)
	return cmd
}

func connect(t *testing.T, stream net.Conn) *ssh.Client {
	t.Helper()
	config := &ssh.ClientConfig{User: "gateway", HostKeyCallback: ssh.InsecureIgnoreHostKey()}
	config.Ciphers = []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES256GCM, ssh.CipherAES128GCM} // asyncssh's order
	conn, channels, requests, err := ssh.NewClientConn(stream, "workspace", config)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.NewClient(conn, channels, requests)
}

// stop ends the agent as a dying gateway would. It has to go by itself, and without an error.
func (w *workspace) stop() {
	w.stdin.Close()
	if w.done == nil {
		return
	}
	select {
	case err := <-w.done:
		if err != nil {
			w.t.Errorf("agent: %v", err)
		}
	case <-time.After(patience):
		w.t.Error("the agent outlived its stdin")
		_ = w.cmd.Process.Kill()
	}
	w.done = nil
	if w.t.Failed() {
		w.t.Logf("agent's stderr: %s", w.stderr)
	}
}

func (w *workspace) session() *ssh.Session {
	w.t.Helper()
	session, err := w.client.NewSession()
	if err != nil {
		w.t.Fatal(err)
	}
	return session
}

// run executes a command with nothing on its stdin.
func (w *workspace) run(command string) (stdout, stderr string, err error) {
	w.t.Helper()
	session := w.session()
	defer session.Close()
	var out, errors bytes.Buffer
	session.Stdout, session.Stderr = &out, &errors
	err = within(w.t, func() error { return session.Run(command) })
	return out.String(), errors.String(), err
}

// output is for commands that have to succeed.
func (w *workspace) output(command string) string {
	w.t.Helper()
	stdout, stderr, err := w.run(command)
	if err != nil {
		w.t.Fatalf("%q: %v; stderr: %s", command, err, stderr)
	}
	return stdout
}

func (w *workspace) setup(json string) (bool, string) {
	w.t.Helper()
	ok, reply, err := w.client.SendRequest("setup@doorward", true, ssh.Marshal(struct{ JSON string }{json}))
	if err != nil {
		w.t.Fatal(err)
	}
	var failure struct{ Reason string }
	if !ok && ssh.Unmarshal(reply, &failure) != nil {
		w.t.Fatalf("reason %q is not a string", reply)
	}
	return ok, failure.Reason
}

func (w *workspace) mustSetup(json string) {
	w.t.Helper()
	if ok, reason := w.setup(json); !ok {
		w.t.Fatal(reason)
	}
}

// alive checks that the connection still serves.
func (w *workspace) alive() {
	w.t.Helper()
	if got := w.output("echo alive"); got != "alive\n" {
		w.t.Fatalf("got %q", got)
	}
}

// patience is how long a test waits for what must come; a busy machine takes its time.
const patience = 40 * time.Second

// within fails a test that hangs, where the reason can still be seen.
func within[T any](t *testing.T, do func() T) T {
	t.Helper()
	result := make(chan T, 1)
	go func() { result <- do() }()
	select {
	case got := <-result:
		return got
	case <-time.After(patience):
		t.Fatal("no end in sight")
		panic("unreachable")
	}
}

// eventually is for what no message announces, such as the death of a grandchild.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func exists(pid string) bool {
	number := must(strconv.Atoi(strings.TrimSpace(pid)))
	return syscall.Kill(number, 0) == nil
}

func exitStatus(err error) int {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Signal() == "":
		return exit.ExitStatus()
	}
	return -1
}

func exitSignal(err error) string {
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return exit.Signal()
	}
	return ""
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

// pipes is the gateway's end of the agent's stdin and stdout.
type pipes struct {
	*os.File
	in *os.File
}

func (p *pipes) Write(b []byte) (int, error) { return p.in.Write(b) }
func (p *pipes) Close() error                { return errors.Join(p.in.Close(), p.File.Close()) }
func (p *pipes) LocalAddr() net.Addr         { return stdioAddr{} }
func (p *pipes) RemoteAddr() net.Addr        { return stdioAddr{} }

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
