package main

import (
	"errors"
	"os"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// tty is a session's terminal: we hold the master, the programs the slave.
type tty struct {
	master *os.File
	slave  *os.File // ours until the first program has it
	name   string
	term   string
}

// windowSize is in the order of the wire, both in pty-req and in window-change.
type windowSize struct{ Columns, Rows, Width, Height uint32 }

// openTTY prepares a terminal completely, so that a program finds its size and modes from the first instruction on.
func openTTY(payload []byte) (*tty, error) {
	var wire struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if err := ssh.Unmarshal(payload, &wire); err != nil {
		return nil, err
	}
	modes, err := parseModes([]byte(wire.Modes))
	if err != nil {
		return nil, err
	}
	blocking, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer blocking.Close()
	master, err := pollable(blocking)
	if err != nil {
		slave.Close()
		return nil, err
	}
	t := &tty{master: master, slave: slave, name: slave.Name(), term: wire.Term}
	err = errors.Join(t.resize(windowSize{wire.Columns, wire.Rows, wire.Width, wire.Height}), t.apply(modes))
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// pollable makes a second handle whose reads can be interrupted: pty.Open leaves the master in blocking mode.
func pollable(file *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), file.Name()), nil
}

func (t *tty) close() {
	t.master.Close()
	t.slave.Close()
}

// control runs an ioctl on the master without turning it back to blocking mode, as Fd() would.
func (t *tty) control(do func(fd int) error) error {
	conn, err := t.master.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}

func (t *tty) resize(to windowSize) error {
	size := &unix.Winsize{Row: uint16(to.Rows), Col: uint16(to.Columns), Xpixel: uint16(to.Width), Ypixel: uint16(to.Height)}
	return t.control(func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size) })
}

// foreground is the process group that has the terminal, or 0.
func (t *tty) foreground() (group int) {
	_ = t.control(func(fd int) (err error) {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return group
}
