package main

import (
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// How long an ended program's output may stay silent before it counts as complete. Usually the end of the stream
// comes first; a background job that still holds it shall keep nothing alive.
const (
	quietPipe = 200 * time.Millisecond
	quietTTY  = 100 * time.Millisecond
)

// hangUpGrace is how long a program has between HUP and KILL when its client has gone.
var hangUpGrace = 2 * time.Second

// process is a program with its ends of stdin, stdout and stderr on our side.
type process struct {
	child *child
	input io.WriteCloser
	outs  []*outlet
	tty   *tty
}

// startProcess runs argv in a session of its own, on the terminal or on three pipes.
func (s *session) startProcess(path string, argv []string) (*process, error) {
	attr := &syscall.ProcAttr{
		Dir: s.agent.settings.folder(),
		Env: s.agent.settings.environ(s.env, s.tty, s.callbacks.env),
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if s.tty != nil {
		return s.startOnTTY(path, argv, attr)
	}
	return s.startOnPipes(path, argv, attr)
}

func (s *session) startOnTTY(path string, argv []string, attr *syscall.ProcAttr) (*process, error) {
	slave := blocking(s.tty.slave)
	attr.Files = []uintptr{slave, slave, slave}
	attr.Sys.Setctty = true // descriptor 0, the default
	child, err := s.agent.family.start(path, argv, attr)
	s.tty.slave.Close() // from here on the terminal hangs up when the last program leaves it
	if err != nil {
		return nil, err
	}
	out := &outlet{from: s.tty.master, to: s.channel, quiet: quietTTY, stays: true}
	return &process{child: child, input: endless{s.tty.master}, outs: []*outlet{out}, tty: s.tty}, nil
}

func (s *session) startOnPipes(path string, argv []string, attr *syscall.ProcAttr) (*process, error) {
	var ours, theirs [3]*os.File
	defer func() { closeAll(theirs[:]) }()
	for i := range ours {
		read, write, err := os.Pipe()
		if err != nil {
			closeAll(ours[:])
			return nil, err
		}
		ours[i], theirs[i] = read, write
		if i == 0 {
			ours[i], theirs[i] = write, read
		}
	}
	for _, file := range theirs {
		attr.Files = append(attr.Files, blocking(file))
	}
	child, err := s.agent.family.start(path, argv, attr)
	if err != nil {
		closeAll(ours[:])
		return nil, err
	}
	return &process{child: child, input: ours[0], outs: []*outlet{
		{from: ours[1], to: s.channel, quiet: quietPipe},
		{from: ours[2], to: s.channel.Stderr(), quiet: quietPipe},
	}}, nil
}

// blocking is a file as programs expect to inherit it; our own ends stay pollable.
func blocking(file *os.File) uintptr {
	fd := file.Fd()
	_ = unix.SetNonblock(int(fd), false)
	return fd
}

func closeAll(files []*os.File) {
	for _, file := range files {
		if file != nil {
			file.Close()
		}
	}
}

// endless is a terminal as input: the end of the client's input must not hang it up.
type endless struct{ io.Writer }

func (endless) Close() error { return nil }

// feed carries the client's input until its end. What a program does not want is dropped, so that the client's
// window stays open for the end of input to arrive.
func (p *process) feed(channel ssh.Channel) {
	_, err := io.Copy(p.input, channel)
	p.input.Close()
	if err != nil {
		_, _ = io.Copy(io.Discard, channel)
	}
}

// signal reaches whoever has the terminal, else the program's process group.
func (p *process) signal(sig syscall.Signal) error {
	if p.tty != nil {
		if group := p.tty.foreground(); group > 0 {
			return syscall.Kill(-group, sig)
		}
	}
	return p.child.signalGroup(sig)
}

// hangUp is for a client that closed the channel. Closing the outputs gives writers a SIGPIPE, and the terminal's
// programs a HUP, before anyone is killed. A program that had ended by itself leaves its background jobs in peace.
func (p *process) hangUp() {
	select {
	case <-p.child.exited:
		return
	default:
	}
	if p.tty != nil {
		_ = p.signal(syscall.SIGHUP)
	}
	for _, out := range p.outs {
		out.from.Close()
	}
	_ = p.child.signalGroup(syscall.SIGHUP)
	_ = p.child.signalGroup(syscall.SIGCONT) // a stopped program could not obey
	deadline := time.After(hangUpGrace)
	select {
	case <-p.child.exited:
		<-deadline // others of its group may have stayed
	case <-deadline:
	}
	_ = p.child.signalGroup(syscall.SIGKILL)
}
