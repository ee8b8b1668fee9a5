package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"ambientd/cluster/node/sandbox"
)

// command runs argv in the container of a process; it ends with the context.
func (n *Node) command(ctx context.Context, p *process, terminal bool, argv []string) *exec.Cmd {
	args := []string{sandbox.ExecCommand, p.spec, strconv.Itoa(p.cmd.Process.Pid)}
	if terminal {
		args = append(args, "-t")
	}
	cmd := exec.CommandContext(ctx, n.binary, append(args, argv...)...)
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	// The helper ends its command on SIGTERM.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	return cmd
}

// output runs a command and gives its output (at most 10 KiB) and exit code.
func (n *Node) output(ctx context.Context, p *process, argv []string) (string, int, error) {
	var out bytes.Buffer
	cmd := n.command(ctx, p, false, argv)
	writer := &limited{w: &out, left: 10 << 10}
	cmd.Stdout, cmd.Stderr = writer, writer
	err := cmd.Run()
	if ctx.Err() != nil {
		return out.String(), -1, ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), exit.ExitCode(), nil
	}
	return out.String(), 0, err
}

// limited drops what is written beyond a number of bytes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(data []byte) (int, error) {
	part := data[:min(len(data), l.left)]
	l.left -= len(part)
	if _, err := l.w.Write(part); err != nil {
		return 0, err
	}
	return len(data), nil
}

// openTerminal gives the two ends of a new pseudo terminal.
func openTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	name, err := unlockTerminal(master)
	if err == nil {
		slave, err = os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		_ = master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
