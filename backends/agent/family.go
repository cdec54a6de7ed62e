package main

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// grace is how long the workspace's processes have between TERM and KILL. (Like the other limits that are variables,
// only so that tests can tell waiting from not waiting.)
var grace = 500 * time.Millisecond

// family is everything that runs in the workspace: the processes we started and the orphans that came to us.
// Nobody else may wait for a child: os/exec's own waits and a wait for any child would steal each other's statuses.
type family struct {
	mu       sync.Mutex
	children map[int]*child
	reaped   chan struct{} // a hint, after each round of reaping
}

// child is one process that we started, the leader of a session and of a process group of its own.
type child struct {
	pid    int
	exited chan struct{}
	status syscall.WaitStatus // valid once exited is closed
}

func newFamily() *family {
	f := &family{children: map[int]*child{}, reaped: make(chan struct{}, 1)}
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for range died {
			f.reap()
			select {
			case f.reaped <- struct{}{}:
			default:
			}
		}
	}()
	return f
}

// start runs a program. The lock is held over the fork, so that a child is known before it can be reaped.
func (f *family) start(path string, argv []string, attr *syscall.ProcAttr) (*child, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, err
	}
	c := &child{pid: pid, exited: make(chan struct{})}
	f.children[pid] = c
	return c, nil
}

// reap collects every dead child there is and says whether any child is left, dead or alive.
func (f *family) reap() (left bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return false
		case pid == 0:
			return true
		}
		if c, ours := f.children[pid]; ours {
			delete(f.children, pid)
			c.status = status
			close(c.exited)
		}
	}
}

// signalGroup reaches the child's process group, which can outlive the child.
func (c *child) signalGroup(sig syscall.Signal) error { return syscall.Kill(-c.pid, sig) }

// end leaves nothing behind: TERM, a grace that is cut short when nobody is left, then KILL.
func (f *family) end() {
	f.signalAll(syscall.SIGTERM)
	f.signalAll(syscall.SIGCONT) // a stopped process would sleep through its TERM
	if f.waitEmpty(grace) {
		return
	}
	// Again and again, for a process that forks faster than we look needs more than one round. Never forever: one
	// that we may not kill is the runtime's to end, and does end when the first process of its namespace does.
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		f.signalAll(syscall.SIGKILL)
		if f.waitEmpty(20 * time.Millisecond) {
			return
		}
	}
}

func (f *family) waitEmpty(limit time.Duration) bool {
	timeout := time.After(limit)
	for f.reap() {
		select {
		case <-f.reaped:
		case <-timeout:
			return false
		}
	}
	return true
}

// signalAll reaches every process of the workspace. Only as the first process of a pid namespace may we say "all":
// elsewhere that would be everybody's processes, so our descendants are looked up instead.
func (f *family) signalAll(sig syscall.Signal) {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, sig)
		return
	}
	f.mu.Lock()
	for _, c := range f.children {
		_ = c.signalGroup(sig)
	}
	f.mu.Unlock()
	for _, pid := range descendants(os.Getpid()) {
		_ = syscall.Kill(pid, sig)
	}
}
