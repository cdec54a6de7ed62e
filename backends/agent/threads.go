package main

import (
	"runtime"
	"sync"
)

const (
	// spareThreads are had from the start. They count towards the workspace's limit of processes.
	spareThreads = 8
	// parallel is how many threads run at once at most, on whatever machine: one connection is no work for more.
	parallel = 4
)

// keepThreads starts the threads that Go's runtime may want later. It never gives one back, and ends a program that
// cannot have one: a workspace in which somebody has started all that it may hold would lose its agent.
func keepThreads(count int) {
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), parallel))
	var started sync.WaitGroup
	release := make(chan struct{})
	defer close(release)
	for range count {
		started.Add(1)
		go func() {
			runtime.LockOSThread() // so that none serves two of us
			defer runtime.UnlockOSThread()
			started.Done()
			<-release
		}()
	}
	started.Wait()
}
