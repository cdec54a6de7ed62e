package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"
)

// agent is one conversation with the gateway.
type agent struct {
	family   *family
	settings *settings
	forwards *forwards
	folders  *folders
	conn     *ssh.ServerConn
	ctx      context.Context // ends with the conversation
}

func newAgent(family *family) *agent {
	return &agent{family: family, settings: &settings{}, forwards: newForwards(), folders: newFolders()}
}

// serve returns when the gateway has gone; nil means that it went without breaking the protocol.
func (a *agent) serve(in io.Reader, out io.WriteCloser) error {
	stream, err := newStdio(in, out)
	if err != nil {
		return clean(err)
	}
	config, err := serverConfig()
	if err != nil {
		return err
	}
	conn, channels, requests, err := ssh.NewServerConn(stream, config)
	if err != nil {
		return clean(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a.conn, a.ctx = conn, ctx
	go a.answer(requests)
	for opening := range channels {
		go a.open(opening)
	}
	a.forwards.closeAll()
	a.folders.removeAll()
	return clean(conn.Wait())
}

// serverConfig asks for no proof: whoever holds our stdin started us, and there is no other way in.
func serverConfig() (*ssh.ServerConfig, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	config := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: "SSH-2.0-DoorwardAgent"}
	// The client's order decides, so the fastest are not merely put first: they are all there is.
	config.Ciphers = []string{ssh.CipherAES128GCM, ssh.CipherAES128CTR}
	config.MACs = []string{ssh.HMACSHA256ETM}
	config.KeyExchanges = []string{ssh.KeyExchangeCurve25519}
	config.AddHostKey(signer)
	return config, nil
}

// openers are the kinds of channel that the gateway may open.
var openers = map[string]func(*agent, ssh.NewChannel){
	"session":                        openSession,
	"direct-tcpip":                   openDirectTCP,
	"direct-streamlocal@openssh.com": openDirectUnix,
}

func (a *agent) open(opening ssh.NewChannel) {
	kind := opening.ChannelType()
	opener, known := openers[kind]
	if !known {
		_ = opening.Reject(ssh.UnknownChannelType, "unknown channel type")
		return
	}
	guard(kind, func() { opener(a, opening) })
}

// globals are the requests that concern the whole workspace. The reply's payload says why not, or which port.
var globals = map[string]func(*agent, []byte) (ok bool, reply []byte){
	"setup@doorward":                         (*agent).setUp,
	"tcpip-forward":                          (*agent).listenTCP,
	"cancel-tcpip-forward":                   (*agent).cancelTCP,
	"streamlocal-forward@openssh.com":        (*agent).listenUnix,
	"cancel-streamlocal-forward@openssh.com": (*agent).cancelUnix,
}

// answer refuses what it does not know, keepalives included: as with sshd, the refusal is the sign of life.
func (a *agent) answer(requests <-chan *ssh.Request) {
	for request := range requests {
		ok, reply := false, []byte(nil)
		if handle, known := globals[request.Type]; known {
			guard(request.Type, func() { ok, reply = handle(a, request.Payload) })
		}
		_ = request.Reply(ok, reply) // a failure here is the end of the connection, which serve sees
	}
}

// accept takes an open channel in use: it is closed when work returns or panics.
func accept(opening ssh.NewChannel, work func(ssh.Channel, <-chan *ssh.Request)) {
	channel, requests, err := opening.Accept()
	if err != nil {
		return // the connection has ended meanwhile
	}
	defer channel.Close()
	work(channel, requests)
}

// byUser is how x/crypto words a client's good-bye; the type behind it is not exported.
const byUser = "ssh: disconnect, reason 11:"

// clean tells a conversation that was ended from one that was broken.
func clean(err error) error {
	if errors.Is(err, io.EOF) || err != nil && strings.HasPrefix(err.Error(), byUser) {
		return nil
	}
	return err
}
