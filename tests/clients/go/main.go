// The x/crypto/ssh client of tests/clients: one task, told as JSON on the command line; what came of it as JSON.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

type order struct {
	Task, User, Key, Command, Stdin, Put, There, Get, Host, Send string
	Port, HostPort                                               int
}

func main() {
	var asked order
	result := map[string]any{}
	err := json.Unmarshal([]byte(os.Args[1]), &asked)
	if err == nil {
		err = run(asked, result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		panic(err)
	}
}

func run(asked order, result map[string]any) error {
	key, err := os.ReadFile(asked.Key)
	if err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return err
	}
	client, err := ssh.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(asked.Port)), &ssh.ClientConfig{
		User:            asked.User,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if known, ok := client.Conn.(ssh.AlgorithmsConnMetadata); ok {
		negotiated := known.Algorithms()
		result["algorithms"] = []string{negotiated.KeyExchange, negotiated.HostKey, negotiated.Read.Cipher}
	}
	switch asked.Task {
	case "login":
		return interactive(client, result)
	case "exec":
		return command(client, asked, result)
	case "transfer":
		return transfer(client, asked)
	case "forward":
		return forward(client, asked, result)
	}
	return fmt.Errorf("no task %q", asked.Task)
}

func interactive(client *ssh.Client, result map[string]any) error {
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	if err := session.RequestPty("xterm", 31, 97, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
		return err
	}
	var shown bytes.Buffer
	session.Stdout = &shown
	session.Stdin = bytes.NewBufferString("stty size; exit 7\n")
	if err := session.Shell(); err != nil {
		return err
	}
	result["status"], err = status(session.Wait())
	result["stdout"] = hex.EncodeToString(shown.Bytes())
	return err
}

func command(client *ssh.Client, asked order, result map[string]any) error {
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	stdin, err := hex.DecodeString(asked.Stdin)
	if err != nil {
		return err
	}
	var out, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = bytes.NewReader(stdin), &out, &stderr
	result["status"], err = status(session.Run(asked.Command))
	result["stdout"], result["stderr"] = hex.EncodeToString(out.Bytes()), hex.EncodeToString(stderr.Bytes())
	return err
}

func status(err error) (int, error) {
	var ended *ssh.ExitError
	if errors.As(err, &ended) {
		return ended.ExitStatus(), nil
	}
	return 0, err
}

func transfer(client *ssh.Client, asked order) error {
	files, err := sftp.NewClient(client)
	if err != nil {
		return err
	}
	defer files.Close()
	put, err := os.Open(asked.Put)
	if err != nil {
		return err
	}
	defer put.Close()
	there, err := files.Create(asked.There)
	if err != nil {
		return err
	}
	if _, err := io.Copy(there, put); err != nil {
		return err
	}
	if err := there.Close(); err != nil {
		return err
	}
	back, err := files.Open(asked.There)
	if err != nil {
		return err
	}
	defer back.Close()
	get, err := os.Create(asked.Get)
	if err != nil {
		return err
	}
	defer get.Close()
	_, err = io.Copy(get, back)
	return err
}

func forward(client *ssh.Client, asked order, result map[string]any) error {
	connection, err := client.Dial("tcp", net.JoinHostPort(asked.Host, strconv.Itoa(asked.HostPort)))
	if err != nil {
		return err
	}
	defer connection.Close()
	send, err := hex.DecodeString(asked.Send)
	if err != nil {
		return err
	}
	if _, err := connection.Write(send); err != nil {
		return err
	}
	answer := make([]byte, 1)
	_, err = io.ReadFull(connection, answer)
	result["answer"] = hex.EncodeToString(answer)
	return err
}
