package main

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
)

// reason is the heart of a system's error, short enough for the client's terminal and without names of ours.
func reason(err error) string {
	var number syscall.Errno
	var lookup *net.DNSError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case errors.As(err, &number):
		return number.Error()
	case errors.As(err, &lookup):
		return lookup.Err
	}
	return "failed"
}
