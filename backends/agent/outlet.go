package main

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// flowLimit bounds how long background jobs can go on writing without a pause after their program has ended.
var flowLimit = 30 * time.Second

// pipeCapacity is the most that an ended program can have left in a pipe that nobody resized beyond the usual limit.
const pipeCapacity = 1 << 20

// outlet is one stream of a program's output on its way to the client.
type outlet struct {
	from  *os.File // pollable
	to    io.Writer
	quiet time.Duration
	ended atomic.Pointer[time.Time] // when the program ended
}

// copy ends at the end of the stream, when the client has gone, or, once the program has ended, when the stream has
// been quiet. All that the program itself wrote is in the pipe when it ends, so it is never lost, however slowly the
// client reads: silence only counts while we are reading.
func (o *outlet) copy() {
	defer o.from.Close()
	buffer := make([]byte, 64<<10)
	late := 0 // bytes since the program ended
	for {
		ended, armed := o.ended.Load(), time.Now()
		if ended != nil {
			if late > pipeCapacity && time.Since(*ended) > flowLimit {
				return
			}
			_ = o.from.SetReadDeadline(armed.Add(o.quiet))
		}
		n, err := o.from.Read(buffer)
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
