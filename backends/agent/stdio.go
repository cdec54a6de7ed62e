package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"time"
)

// stdio is our stdin and stdout as the connection that x/crypto/ssh wants.
type stdio struct {
	in  *bufio.Reader
	out *gatherer
}

// newStdio returns once the gateway has been heard, for what is written before it is attached is lost on Kubernetes.
// An error means that nobody came.
func newStdio(in io.Reader, out io.WriteCloser) (*stdio, error) {
	// Larger than a packet, so that its few header bytes do not cost a system call of their own.
	reader := bufio.NewReaderSize(in, 256<<10)
	_, err := reader.Peek(1)
	return &stdio{reader, newGatherer(out)}, err
}

func (s *stdio) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *stdio) Write(b []byte) (int, error) { return s.out.Write(b) }

// Close leaves stdin alone: a read in progress could not be interrupted anyway, and we are about to exit.
func (s *stdio) Close() error { return s.out.Close() }

func (s *stdio) LocalAddr() net.Addr              { return stdioAddr{} }
func (s *stdio) RemoteAddr() net.Addr             { return stdioAddr{} }
func (s *stdio) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (s *stdio) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (s *stdio) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

type stdioAddr struct{}

func (stdioAddr) Network() string { return "stdio" }
func (stdioAddr) String() string  { return "stdio" }

var _ io.ReadWriteCloser = (*stdio)(nil)
