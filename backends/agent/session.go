package main

import (
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

const noShell = "doorward: this image has no shell; sftp and forwards still work\n"

// session is one session channel: what the client asked for, and the one program that it started.
type session struct {
	agent   *agent
	channel ssh.Channel
	env     map[string]string
	tty     *tty
	process *process
	started bool

	callbacks callbacks
}

// sessionRequests answer whether a request is granted, and what is to happen once the client has been told.
var sessionRequests = map[string]func(*session, []byte) (granted bool, then func()){
	"env":             (*session).setEnv,
	"pty-req":         (*session).allocateTTY,
	"window-change":   (*session).changeWindow,
	"shell":           (*session).startShell,
	"exec":            (*session).startCommand,
	"subsystem":       (*session).startSubsystem,
	"signal":          (*session).deliverSignal,
	"break":           (*session).sendBreak,
	"eow@openssh.com": (*session).stopOutput,

	"x11-req":                    (*session).forwardX11,
	"auth-agent-req@openssh.com": (*session).forwardKeys,
}

// maxEnv is sshd's limit for variables in one session.
const maxEnv = 1024

func openSession(a *agent, opening ssh.NewChannel) {
	if len(opening.ExtraData()) != 0 {
		_ = opening.Reject(ssh.ConnectionFailed, "ill-formed session")
		return
	}
	accept(opening, func(channel ssh.Channel, requests <-chan *ssh.Request) {
		s := &session{agent: a, channel: channel, env: map[string]string{}}
		s.callbacks.folders = a.folders
		defer s.gone()
		s.serve(requests)
	})
}

// serve takes the requests in their order until the channel is closed.
func (s *session) serve(requests <-chan *ssh.Request) {
	for request := range requests {
		granted, then := false, (func())(nil)
		if handle, known := sessionRequests[request.Type]; known {
			guard(request.Type, func() { granted, then = handle(s, request.Payload) })
		}
		_ = request.Reply(granted, nil)
		if then != nil {
			go guard("session", then, func() { s.channel.Close() })
		}
	}
}

// gone is what a closed channel means for the program behind it.
func (s *session) gone() {
	s.callbacks.close()
	if s.process != nil {
		s.process.hangUp()
	}
	if s.tty != nil {
		s.tty.close()
	}
}

func (s *session) setEnv(payload []byte) (bool, func()) {
	var wire struct{ Name, Value string }
	if ssh.Unmarshal(payload, &wire) != nil || s.started || len(s.env) >= maxEnv {
		return false, nil
	}
	if !validName(wire.Name) || strings.ContainsRune(wire.Value, 0) || s.agent.settings.reserves(wire.Name) {
		return false, nil
	}
	s.env[wire.Name] = wire.Value
	return true, nil
}

func (s *session) allocateTTY(payload []byte) (bool, func()) {
	if s.started || s.tty != nil {
		return false, nil
	}
	tty, err := openTTY(payload)
	if err != nil {
		complain("pty: %v", err)
		return false, nil
	}
	s.tty = tty
	return true, nil
}

func (s *session) changeWindow(payload []byte) (bool, func()) {
	var size windowSize
	return s.tty != nil && ssh.Unmarshal(payload, &size) == nil && s.tty.resize(size) == nil, nil
}

// startShell gives a login shell, which is told so by the dash before its name.
func (s *session) startShell(payload []byte) (bool, func()) {
	if len(payload) != 0 {
		return false, nil
	}
	return s.start(func(name string) []string { return []string{"-" + name} })
}

// startCommand leaves the command line to the shell always, also when it looks like a path.
func (s *session) startCommand(payload []byte) (bool, func()) {
	var wire struct{ Command string }
	if ssh.Unmarshal(payload, &wire) != nil || strings.ContainsRune(wire.Command, 0) {
		return false, nil
	}
	return s.start(func(name string) []string { return []string{name, "-c", wire.Command} })
}

func (s *session) start(argv func(name string) []string) (bool, func()) {
	if s.started {
		return false, nil
	}
	s.started = true
	shell := s.agent.settings.findShell()
	if shell == "" {
		return true, func() { s.fail(noShell) }
	}
	process, err := s.startProcess(shell, argv(filepath.Base(shell)))
	if err != nil {
		return true, func() { s.fail("doorward: cannot start " + shell + ": " + err.Error() + "\n") }
	}
	s.process = process
	return true, func() { s.relay(process) }
}

// relay carries the program's streams, then its fate: all output first, for clients stop listening at the status.
func (s *session) relay(p *process) {
	go guard("stdin", func() { p.feed(s.channel) })
	var copying sync.WaitGroup
	for _, out := range p.outs {
		copying.Go(func() { guard("output", out.copy) })
	}
	told := make(chan struct{})
	go func() {
		copying.Wait()
		_ = s.channel.CloseWrite() // a program may close its output long before it ends
		close(told)
	}()
	<-p.child.exited
	for _, out := range p.outs {
		out.programEnded()
	}
	<-told
	s.finish(p.child.status)
}

// finish tells how the program ended. A death by signal is said as such: 128+n is a shell's word for it, not SSH's.
func (s *session) finish(status syscall.WaitStatus) {
	if status.Signaled() {
		_, _ = s.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name     string
			Core     bool
			Message  string
			Language string
		}{signalName(status.Signal()), status.CoreDump(), "", ""}))
	} else {
		s.exitStatus(uint32(status.ExitStatus()))
	}
	_ = s.channel.Close()
}

func (s *session) exitStatus(status uint32) {
	_, _ = s.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

// fail is how a session ends whose program could not be started.
func (s *session) fail(why string) {
	_, _ = s.channel.Stderr().Write([]byte(why))
	_ = s.channel.CloseWrite()
	s.exitStatus(127)
	_ = s.channel.Close()
}

func (s *session) deliverSignal(payload []byte) (bool, func()) {
	var wire struct{ Name string }
	if ssh.Unmarshal(payload, &wire) != nil || s.process == nil {
		return false, nil
	}
	sig, known := signals[wire.Name]
	return known && s.process.signal(sig) == nil, nil
}

// sendBreak has nothing to send: a pseudo-terminal has no line to hold, and the kernel ignores a break on it.
func (s *session) sendBreak(payload []byte) (bool, func()) {
	var wire struct{ Milliseconds uint32 }
	return ssh.Unmarshal(payload, &wire) == nil && s.tty != nil, nil
}

// stopOutput is for a client whose stdout was closed (ssh host yes | head -1): the program gets a SIGPIPE when it
// writes on, while its stderr and its exit status still arrive. A terminal has no such half, so it stays whole.
func (s *session) stopOutput([]byte) (bool, func()) {
	if s.process != nil && s.tty == nil {
		s.process.outs[0].from.Close()
	}
	return true, nil
}
