package node

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/remotecommand"
)

// serveLogs answers kubectl logs with --previous, --tail, --limit-bytes and -f.
// The output is kept as it was written, without times: --since and --timestamps
// do nothing.
func (n *Node) serveLogs(w http.ResponseWriter, r *http.Request) {
	pod := n.find(r.PathValue("namespace"), r.PathValue("pod"))
	var c *container
	if pod != nil {
		c = pod.container(r.PathValue("container"))
	}
	if c == nil {
		http.Error(w, "container not found", http.StatusNotFound)
		return
	}
	query := r.URL.Query()
	pod.mutex.Lock()
	run, p := c.runs-1, c.proc
	pod.mutex.Unlock()
	if previous, _ := strconv.ParseBool(query.Get("previous")); previous {
		run, p = run-1, nil
	}
	file, err := os.Open(pod.logPath(c.spec.Name, run))
	if err != nil {
		http.Error(w, "no such run of container "+c.spec.Name, http.StatusBadRequest)
		return
	}
	defer file.Close()
	if tail, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		if err := seekTail(file, tail); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	var in io.Reader = file
	if limit, err := strconv.ParseInt(query.Get("limitBytes"), 10, 64); err == nil {
		in = io.LimitReader(file, limit)
	}
	w.Header().Set("Content-Type", "text/plain")
	follow, _ := strconv.ParseBool(query.Get("follow"))
	_, err = io.Copy(w, in)
	for follow && err == nil && p != nil {
		_ = http.NewResponseController(w).Flush()
		over := p.ended()
		_, err = io.Copy(w, in)
		if over {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-p.done:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// seekTail moves to the start of the last lines of a file.
func seekTail(file *os.File, lines int) error {
	data, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	at := len(data)
	if at > 0 && data[at-1] == '\n' {
		at--
	}
	for range lines {
		at = bytes.LastIndexByte(data[:max(at, 0)], '\n')
		if at < 0 {
			break
		}
	}
	if lines == 0 {
		at = len(data) - 1
	}
	_, err = file.Seek(int64(at+1), io.SeekStart)
	return err
}

// runWithPipes runs a command with separate streams.
func runWithPipes(cmd *exec.Cmd, in io.Reader, out, problems io.Writer) error {
	if out != nil {
		cmd.Stdout = out
	}
	if problems != nil {
		cmd.Stderr = problems
	}
	if in == nil {
		return cmd.Run()
	}
	// Not cmd.Stdin: Run would wait for the client's input to end.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(stdin, in)
		_ = stdin.Close()
	}()
	return cmd.Run()
}

// runInTerminal runs a command with a terminal of its own.
func runInTerminal(cmd *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	err = cmd.Start()
	_ = slave.Close()
	if err != nil {
		return err
	}
	go func() {
		for size := range resize {
			_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(master, in) }()
	}
	if out != nil {
		_, _ = io.Copy(out, master)
	}
	return cmd.Wait()
}

// unlockTerminal makes the other end of a pseudo terminal usable and names it.
func unlockTerminal(master *os.File) (string, error) {
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return "", err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	return "/dev/pts/" + strconv.Itoa(number), err
}
