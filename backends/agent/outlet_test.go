package main

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"
)

// slowClient takes the first piece only when it is told to.
type slowClient struct {
	bytes.Buffer
	blocked, released chan struct{}
}

func (c *slowClient) Write(b []byte) (int, error) {
	if c.Len() == 0 {
		close(c.blocked)
		<-c.released
	}
	return c.Buffer.Write(b)
}

// The program ends while the client takes nothing, and a background job keeps the pipe open. The quiet time is over
// before anything can be read, so only looking tells that there is more.
func TestWhatIsInThePipeWhenTheProgramEndsIsDelivered(t *testing.T) {
	t.Parallel()
	read, write := must2(os.Pipe())
	defer write.Close()
	client := &slowClient{blocked: make(chan struct{}), released: make(chan struct{})}
	out := &outlet{from: read, to: client, quiet: time.Nanosecond}
	done := make(chan struct{})
	go func() { out.copy(); close(done) }()

	must(io.WriteString(write, "first words, "))
	<-client.blocked
	must(io.WriteString(write, "last words"))
	out.programEnded()
	close(client.released)
	within(t, func() error { <-done; return nil })

	if got := client.String(); got != "first words, last words" {
		t.Errorf("got %q", got)
	}
}
