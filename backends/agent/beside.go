package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Beside a running service, as one more container of its pod, there is no folder of our own for a socket: its name is
// abstract, in a network namespace that is the service's, where anybody can find it. So each end asks the kernel who
// is at the other: the same user, of the same container.

// overdue is the agent's exit status when its time is over, as timeout(1) has it, and never otherwise: the runtime tells
// the gateway nothing else of an end. The gateway knows it as OVERDUE in gateway/backends/kubernetes/guest.py.
const overdue = 124

var errOverdue = errors.New("its time is over")

// beside serves the first of ours who comes, and ends by itself after so many seconds: no runtime ends us here.
func beside(name, seconds string, lifeline io.Reader, agent *agent) error {
	left, err := strconv.ParseUint(seconds, 10, 31)
	if err != nil {
		return fmt.Errorf("not a number of seconds: %q", seconds)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- whileHeld(lifeline, func() error { return serveFirst(listener, isOurs, agent) })
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Duration(left) * time.Second):
		return errOverdue
	}
}

// giveWay has the kernel, when memory runs out, take us and what we start before the service whose memory it is.
// It goes before `protect`: of an undumpable process the file is root's.
func giveWay() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o644) }

// isOurs tells a process of our own container from the service's and from other people's beside it.
func isOurs(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if int(peer.Uid) != os.Getuid() {
		return errors.New("it is another user's")
	}
	if peer.Pid == 0 { // no number of our process namespace
		return errors.New("it is of another container")
	}
	theirs, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", peer.Pid))
	if err != nil {
		return err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	if !bytes.Equal(own, theirs) {
		return errors.New("it is of another container")
	}
	return nil
}

// anybody is who may come where the file system decides who can.
func anybody(*net.UnixConn) error { return nil }
