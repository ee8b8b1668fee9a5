// Program echo-advanced stands for the image of that name in the mesh's tests: a
// server that describes the requests it gets, and a client, `client URL`, that the
// tests run inside its pods and whose output they read. Both speak in lines, as
// the image's own do:
//
//	[0] StatusCode=200
//	[0] ResponseHeader=Content-Type:text/plain
//	[0 body] Hostname=echo-v1-7d9f
//	[0 body] RequestHeader=Accept:*/*
//
// with an empty line between responses.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// clientPath is where the tests find the client in a container.
const clientPath = "/usr/local/bin/client"

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case filepath.Base(args[0]) == filepath.Base(clientPath):
		return client(args[1:])
	case len(args) > 1 && args[1] == "idle":
		// Stands for an image that only has to be there.
		wait()
		return nil
	}
	return serve(args[1:])
}

// wait returns when the process is told to end.
func wait() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	<-signals
}

// installClient makes the program known as the client in its own container.
func installClient() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Remove(clientPath); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Symlink(self, clientPath)
}
