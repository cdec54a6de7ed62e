package main

import (
	"fmt"
	"io"
	"net"
	"time"
)

// Two workspaces can try whether one reaches the other: the only way to know whether a cluster enforces its rules.

const reachSeconds = 3 * time.Second

// answerAt accepts connections until the lifeline ends.
func answerAt(address string, lifeline io.Reader) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, lifeline)
		listener.Close()
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil
		}
		conn.Close()
	}
}

// reach says in one word whether something answers there.
func reach(address string) error {
	conn, err := net.DialTimeout("tcp", address, reachSeconds)
	if err != nil {
		fmt.Println("unreached")
		return nil
	}
	fmt.Println("reached")
	return conn.Close()
}
