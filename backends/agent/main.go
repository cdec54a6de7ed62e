// Command agent is the first process of every Doorward workspace. It speaks the SSH server protocol on its stdin and
// stdout, to the gateway and to nobody else, and takes everything it started along when that conversation ends.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "dev"

func main() {
	command, words := "", []string(nil)
	if len(os.Args) > 1 {
		command, words = os.Args[1], os.Args[2:]
	}
	switch {
	case len(os.Args) == 1:
		os.Exit(run(func(a *agent) error { return a.serve(os.Stdin, os.Stdout) }))
	case command == "--version" && len(words) == 0:
		fmt.Println("doorward-agent", version)
	case command == "dial" && len(words) == 1:
		os.Exit(run(func(a *agent) error { return serveOver(words[0], os.Stdin, os.Stdout, a) }))
	case command == "serve" && len(words) == 1:
		os.Exit(run(func(a *agent) error { return serveAt(words[0], os.Stdin, a) }))
	case command == "beside" && len(words) == 2:
		if err := giveWay(); err != nil {
			os.Exit(code(err))
		}
		os.Exit(run(func(a *agent) error { return beside(words[0], words[1], os.Stdin, a) }))
	case command == "connect" && len(words) == 1:
		protect()
		os.Exit(code(join(words[0], os.Stdin, os.Stdout)))
	case command == "answer" && len(words) == 1:
		os.Exit(code(answerAt(words[0], os.Stdin)))
	case command == "reach" && len(words) == 1:
		os.Exit(code(reach(words[0])))
	case command == "install" && len(words) > 0:
		os.Exit(code(install(words[0], words[1:])))
	default:
		complain("usage: agent [--version | dial SOCKET | serve SOCKET | beside @NAME SECONDS | connect SOCKET | install FILE FOLDER... | answer ADDRESS | reach ADDRESS]")
		os.Exit(2)
	}
}

func code(err error) int {
	if err != nil {
		complain("%v", err)
		return 1
	}
	return 0
}

// run serves one gateway and returns the exit status: 0, or overdue. However the conversation ends, the workspace ends
// with it.
func run(serve func(*agent) error) int {
	protect()
	keepThreads(spareThreads)
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM, syscall.SIGINT)
	// A handler, not signal.Ignore: an ignored signal would stay ignored in every program that we start.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP)

	family := newFamily()
	talk := make(chan error, 1)
	go guard("connection", func() { talk <- serve(newAgent(family)) }, func() { talk <- nil })

	status := 0
	select {
	case err := <-talk:
		if err != nil {
			complain("connection: %v", err)
		}
		if errors.Is(err, errOverdue) {
			status = overdue
		}
	case <-ending:
	}
	family.end()
	return status
}

// protect keeps the person in the workspace, who runs under our user id, from reading our memory or tracing us, and
// sees to it that orphans come to us also where we are not the first process of a pid namespace.
func protect() {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		complain("cannot become undumpable: %v", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		complain("cannot become the reaper of orphans: %v", err)
	}
}

// complain is the only diagnostic: one line on stderr, for stdout belongs to the protocol.
func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "doorward-agent: %s\n", fmt.Sprintf(format, args...))
}

// guard runs work and keeps a panic in it from taking the other channels down; after says what to do then.
func guard(what string, work func(), after ...func()) {
	defer func() {
		if reason := recover(); reason != nil {
			complain("panic in %s: %v", what, reason)
			for _, do := range after {
				do()
			}
		}
	}()
	work()
}
