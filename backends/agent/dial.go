package main

import (
	"context"
	"net"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
)

const dialTimeout = 10 * time.Second

// openDirectTCP connects from inside the workspace: the name is resolved and the network is seen as programs there do.
func openDirectTCP(a *agent, opening ssh.NewChannel) {
	var wire struct {
		Host       string
		Port       uint32
		Originator string
		OriginPort uint32
	}
	if ssh.Unmarshal(opening.ExtraData(), &wire) != nil || wire.Port == 0 || wire.Port > 65535 {
		_ = opening.Reject(ssh.ConnectionFailed, "ill-formed destination")
		return
	}
	address := net.JoinHostPort(wire.Host, strconv.Itoa(int(wire.Port)))
	dial(a, opening, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	})
}

func openDirectUnix(a *agent, opening ssh.NewChannel) {
	var wire struct {
		Path      string
		Reserved  string
		Reserved2 uint32
	}
	if ssh.Unmarshal(opening.ExtraData(), &wire) != nil {
		_ = opening.Reject(ssh.ConnectionFailed, "ill-formed destination")
		return
	}
	dial(a, opening, func(ctx context.Context) (net.Conn, error) { return dialSocket(ctx, wire.Path) })
}

func dial(a *agent, opening ssh.NewChannel, connect func(context.Context) (net.Conn, error)) {
	ctx, cancel := context.WithTimeout(a.ctx, dialTimeout)
	defer cancel()
	socket, err := connect(ctx)
	if err != nil {
		_ = opening.Reject(ssh.ConnectionFailed, reason(err))
		return
	}
	channel, requests, err := opening.Accept()
	if err != nil {
		socket.Close()
		return
	}
	bridge(channel, requests, socket)
}
