package run

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ambientd/cluster/node"
)

const (
	// readyLimit is how long all parts together may take to get ready.
	readyLimit = 80 * time.Second
	// pollEvery is the pause between two looks.
	pollEvery = 100 * time.Millisecond
	// tailLines is how much of each log a failure shows.
	tailLines = 15
)

// options are the flags of `run`.
type options struct {
	dir    string
	slot   int
	nodes  int
	images list
	// hostPaths are paths of the machine that pods may mount as they are.
	hostPaths list
	// withStdin ends the cluster when standard input does.
	withStdin bool
	programs  programs
}

// usage is said before the flags.
const usage = `usage: cluster run --state-dir DIR [FLAG]...

Starts a cluster in a network namespace of its own, writes the file DIR/ready when it
is, and stops it on SIGTERM.

Where KUBEBUILDER_ASSETS names a directory, as envtest has it, etcd and kube-apiserver
are run from there and must be there. kube-controller-manager, kube-scheduler and
kube-proxy come from there too if they are there; what is not, the nodes and kubectl
are this program's own, so its Kubernetes should be near the one of the directory.

`

// list is a flag that may be repeated.
type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

// Ready is what `run` writes to the file `ready` once all parts are.
type Ready struct {
	Plan
	Kubeconfig string `json:"kubeconfig"`
	// Binary is this program, which is a kubectl too.
	Binary string `json:"binary"`
	// Programs are the parts that are not from this program.
	Programs  programs `json:"programs"`
	ElapsedMS int64    `json:"elapsedMS"`
	Steps     []steps  `json:"steps"`
}

// steps is when something was ready, counted from the start.
type steps struct {
	Name string `json:"name"`
	AtMS int64  `json:"atMS"`
}

// Main runs a cluster in the foreground.
func Main(args []string) int {
	var o options
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	flags.StringVar(&o.dir, "state-dir", "", "where the cluster keeps its files; must be empty or absent")
	flags.IntVar(&o.slot, "id", -1, fmt.Sprintf("the slot to use, below %d; -1 for the first that is free", slotsCount))
	flags.IntVar(&o.nodes, "nodes", 2, fmt.Sprintf("how many nodes, at most %d", nodesMax))
	flags.Var(&o.images, "image", "NAME=PROGRAM[,PROGRAM...] [ARGS...] that containers of this image run; may be repeated")
	flags.Var(&o.hostPaths, "host-path", "a path of the machine that pods may mount as it is; may be repeated")
	flags.BoolVar(&o.withStdin, "with-stdin", false, "stop when standard input ends")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	_ = flags.Parse(args)
	if err := o.check(flags.NArg()); err != nil {
		fmt.Fprintf(os.Stderr, "cluster run: %v\n", err)
		return 2
	}
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "cluster run: %v\n", err)
		return 1
	}
	return 0
}

func (o *options) check(rest int) error {
	switch {
	case rest > 0:
		return errors.New("only flags are taken")
	case o.dir == "":
		return errors.New("--state-dir is needed")
	case o.slot >= slotsCount:
		return fmt.Errorf("--id must be below %d", slotsCount)
	case o.nodes < 0 || o.nodes > nodesMax:
		return fmt.Errorf("--nodes must be from 0 to %d", nodesMax)
	case os.Geteuid() != 0:
		return errors.New("a cluster needs root, for its network namespaces")
	}
	if err := o.checkImages(); err != nil {
		return err
	}
	var err error
	if o.programs, err = findPrograms(); err != nil {
		return err
	}
	o.dir, err = filepath.Abs(o.dir)
	return err
}

// checkImages finds what no node could run before there is one.
func (o *options) checkImages() error {
	for i, image := range o.images {
		absolute, err := node.CheckImage(image)
		if err != nil {
			return err
		}
		o.images[i] = absolute
	}
	return nil
}

// CleanMain removes what a killed run left in a slot.
func CleanMain(args []string) int {
	flags := flag.NewFlagSet("clean", flag.ExitOnError)
	slot := flags.Int("id", -1, "the slot")
	ifFree := flags.Bool("if-free", false, "do nothing when another cluster has taken the slot")
	_ = flags.Parse(args)
	if *slot < 0 || *slot >= slotsCount {
		fmt.Fprintf(os.Stderr, "cluster clean: --id must be from 0 to %d\n", slotsCount-1)
		return 2
	}
	lock, err := lockSlot(*slot)
	if errors.Is(err, errTaken) && *ifFree {
		return 0
	}
	if err == nil {
		err = clean(plan(*slot, 0))
		lock.release()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster clean: slot %d: %v\n", *slot, err)
		return 1
	}
	return 0
}

// run holds a cluster from its first part to its last trace.
func run(o options) (failed error) {
	began := time.Now()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer cancel()
	if o.withStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	l := layout{dir: o.dir}
	for _, dir := range []string{"pki", "logs", "pids"} {
		if err := os.MkdirAll(l.path(dir), 0o700); err != nil {
			return err
		}
	}
	lock, p, err := takeSlot(o.slot, o.nodes)
	if err != nil {
		return err
	}
	defer lock.release()
	// Whoever finds us killed learns from this what to clean.
	if err := os.WriteFile(l.path("slot"), fmt.Appendf(nil, "%d", p.Slot), 0o600); err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, clean(p)) }()
	if err := buildFabric(p); err != nil {
		return err
	}
	f, err := enterFabric(p)
	if err != nil {
		return fmt.Errorf("entering %s: %w", p.Fabric, err)
	}
	s := newSupervisor(l, f, o.programs)
	defer func() { failed = errors.Join(failed, s.stopAll()) }()
	listener, err := net.Listen("unix", l.path("control"))
	if err != nil {
		return err
	}
	defer listener.Close()
	go s.serveControl(listener)
	up := startup{options: o, plan: p, layout: l, supervisor: s, began: began}
	if err := up.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // Asked to stop before we were up.
		}
		return errors.Join(err, up.logs())
	}
	<-ctx.Done()
	return nil
}

// writeJSON writes a file that is there whole or not at all.
func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
