package main

import (
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
)

// bridge joins a channel and a socket until both directions have ended, each for itself: the end of one is passed on
// as a half-close, and an answer can still come back. It closes both.
func bridge(channel ssh.Channel, requests <-chan *ssh.Request, socket net.Conn) {
	defer channel.Close()
	defer socket.Close()
	var inward, outward sync.WaitGroup
	inward.Go(func() { guard("forward", func() { carry(socket, channel) }) })
	outward.Go(func() { guard("forward", func() { carry(channel, socket) }) })
	go func() {
		for request := range requests { // no request has a meaning here
			_ = request.Reply(false, nil)
		}
		inward.Wait()  // what came before the close is still delivered
		socket.Close() // nobody is left for what the socket might still say
	}()
	inward.Wait()
	outward.Wait()
}

func carry(to io.Writer, from io.Reader) {
	_, _ = io.Copy(to, from)
	if end, can := to.(interface{ CloseWrite() error }); can {
		_ = end.CloseWrite()
	}
}
