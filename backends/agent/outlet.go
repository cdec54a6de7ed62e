package main

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// flowLimit bounds how long background jobs can go on writing without a pause after their program has ended.
var flowLimit = 30 * time.Second

// pipeCapacity is the most that an ended program can have left in a pipe that nobody resized beyond the usual limit.
const pipeCapacity = 1 << 20

// pipeSize is for a program that fills the usual 64 KiB. Not for all: the kernel bounds what one user's pipes hold
// together, over all workspaces, and gives next to nothing beyond.
const pipeSize = 256 << 10

// outlet is one stream of a program's output on its way to the client.
type outlet struct {
	from  *os.File // pollable
	to    io.Writer
	quiet time.Duration
	// stays: the end of the stream does not close it. A terminal's end is only that no program holds it at the moment:
	// closed, it would hang up on one that has closed its output and is still about to exit, as cat does.
	stays bool
	ended atomic.Pointer[time.Time] // when the program ended
}

// copy ends at the end of the stream, when the client has gone, or, once the program has ended, when the stream has
// been quiet. All that the program itself wrote is in the pipe when it ends, so it is never lost, however slowly the
// client reads: silence only counts while we are reading.
func (o *outlet) copy() {
	if !o.stays {
		defer o.from.Close()
	}
	buffer := make([]byte, 64<<10)
	late := 0 // bytes since the program ended
	wide := false
	for {
		ended, armed := o.ended.Load(), time.Now()
		if ended != nil {
			if late > pipeCapacity && time.Since(*ended) > flowLimit {
				return
			}
			_ = o.from.SetReadDeadline(armed.Add(o.quiet))
		}
		n, err := o.from.Read(buffer)
		if n == len(buffer) && !wide {
			wide = true
			widen(o.from)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if ended == nil || time.Since(armed) < o.quiet {
				continue // only woken up
			}
			n, err = o.lastLook(buffer)
		}
		if n > 0 {
			if _, gone := o.to.Write(buffer[:n]); gone != nil {
				return
			}
			if ended != nil {
				late += n
			}
		}
		if err != nil {
			return
		}
	}
}

// programEnded wakes a reader up, which from then on counts the silence.
func (o *outlet) programEnded() {
	now := time.Now()
	o.ended.Store(&now)
	_ = o.from.SetReadDeadline(now)
}

// lastLook reads once without waiting. A deadline that has passed fails a read before it looks, so on a busy machine
// silence alone does not prove that the pipe is empty.
func (o *outlet) lastLook(buffer []byte) (n int, err error) {
	_ = o.from.SetReadDeadline(time.Time{})
	conn, err := o.from.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		n, failed = syscall.Read(int(fd), buffer)
		return true
	})
	if err = errors.Join(err, failed); err == nil && n <= 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

// widen asks for a pipe that holds more, so that a fast program is stopped less often. That is a favour, and on a
// terminal there is nothing to widen, so it may be refused.
func widen(pipe *os.File) {
	if conn, err := pipe.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}
