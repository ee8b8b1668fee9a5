// Package programs holds the images that are part of the binary itself: an echo
// server and a program that only waits. Like the container's init they run
// before any package of Kubernetes is initialised (see package sandbox).
package programs

import (
	"fmt"
	"os"
	"os/signal"
	"sort"
	"syscall"
)

// Command is the hidden subcommand: `node-program NAME ARGS…`.
const Command = "node-program"

// known programs by image name. "client" and "busybox" wait so that commands
// can be run in their containers.
var known = map[string]func(args []string) int{
	"echo":    echo,
	"client":  wait,
	"busybox": wait,
	"pause":   wait,
}

// Names of the programs, sorted.
func Names() []string {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// init takes over in a container's process.
func init() {
	if len(os.Args) < 3 || os.Args[1] != Command {
		return
	}
	program := known[os.Args[2]]
	if program == nil {
		fmt.Fprintf(os.Stderr, "no program %q\n", os.Args[2])
		os.Exit(127)
	}
	os.Exit(program(os.Args[3:]))
}

// wait sleeps until it is told to end.
func wait([]string) int {
	<-endSignal()
	return 0
}

func endSignal() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	return signals
}
