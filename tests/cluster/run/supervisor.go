package run

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// gentleEnd is how long a part that was asked to end may take.
const gentleEnd = 10 * time.Second

// supervisor starts and stops the parts of one cluster. A part that ends stays
// ended until it is started again.
type supervisor struct {
	layout   layout
	fabric   *fabric
	programs programs

	mu    sync.Mutex
	parts map[string]*part
	order []string
}

// part is one process that can be started again.
type part struct {
	spec    partSpec
	command *exec.Cmd
	// ended is closed when the process has been waited for; nil before the first start.
	ended chan struct{}
	state string
}

func newSupervisor(l layout, f *fabric, p programs) *supervisor {
	return &supervisor{layout: l, fabric: f, programs: p, parts: map[string]*part{}}
}

// add makes a part known and starts it.
func (s *supervisor) add(spec partSpec) error {
	s.mu.Lock()
	s.parts[spec.name] = &part{spec: spec}
	s.order = append(s.order, spec.name)
	s.mu.Unlock()
	return s.start(spec.name)
}

func (s *supervisor) get(name string) (*part, error) {
	p, ok := s.parts[name]
	if !ok {
		return nil, fmt.Errorf("no part %q; there are %v", name, s.order)
	}
	return p, nil
}

func (p *part) running() bool {
	if p.ended == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// start starts a part that does not run.
func (s *supervisor) start(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.get(name)
	if err != nil {
		return err
	}
	if p.running() {
		return fmt.Errorf("%s runs already", name)
	}
	log, err := os.OpenFile(s.layout.log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	words := append(s.programs.command(cmp.Or(p.spec.program, name)), p.spec.args...)
	command := exec.Command(words[0], words[1:]...)
	command.Stdout, command.Stderr = log, log
	command.Dir = s.layout.dir
	if err := s.fabric.start(command); err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	p.command, p.ended, p.state = command, make(chan struct{}), ""
	go func(ended chan struct{}) {
		_ = command.Wait()
		close(ended)
	}(p.ended)
	return os.WriteFile(s.layout.pid(name), fmt.Appendln(nil, command.Process.Pid), 0o600)
}

// signal sends a signal to a part and everything it started in its group.
func (s *supervisor) signal(name string, signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.get(name)
	if err != nil {
		return err
	}
	if !p.running() {
		return fmt.Errorf("%s does not run", name)
	}
	return syscall.Kill(-p.command.Process.Pid, signal)
}

// end sends a signal that ends a part, and waits until it is gone.
func (s *supervisor) end(name string, signal syscall.Signal) error {
	if err := s.signal(name, signal); err != nil {
		return err
	}
	s.mu.Lock()
	p := s.parts[name]
	s.mu.Unlock()
	if signal != syscall.SIGKILL {
		// One that is stopped hears nothing.
		_ = s.signal(name, syscall.SIGCONT)
		select {
		case <-p.ended:
		case <-time.After(gentleEnd):
			_ = s.signal(name, syscall.SIGKILL)
		}
	}
	<-p.ended
	return os.Remove(s.layout.pid(name))
}

// dead names a part that has ended by itself, if there is one.
func (s *supervisor) dead() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.order {
		if p := s.parts[name]; !p.running() {
			return fmt.Errorf("%s has ended: %s", name, p.command.ProcessState)
		}
	}
	return nil
}

// status is a line for each part.
func (s *supervisor) status() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, name := range s.order {
		p := s.parts[name]
		if p.running() {
			lines = append(lines, fmt.Sprintf("%s runs as process %d", name, p.command.Process.Pid))
		} else {
			lines = append(lines, fmt.Sprintf("%s has ended: %s", name, p.command.ProcessState))
		}
	}
	return lines
}

// stopAll ends the gentle parts together, then the rest.
func (s *supervisor) stopAll() error {
	s.mu.Lock()
	var gentle, others []string
	for _, name := range s.order {
		if s.parts[name].spec.gentle {
			gentle = append(gentle, name)
		} else {
			others = append(others, name)
		}
	}
	s.mu.Unlock()
	return errors.Join(s.endEach(gentle, syscall.SIGTERM), s.endEach(others, syscall.SIGKILL))
}

func (s *supervisor) endEach(names []string, signal syscall.Signal) error {
	results := make(chan error)
	for _, name := range names {
		go func() {
			s.mu.Lock()
			running := s.parts[name].running()
			s.mu.Unlock()
			if !running {
				results <- nil
				return
			}
			results <- s.end(name, signal)
		}()
	}
	var failed []error
	for range names {
		failed = append(failed, <-results)
	}
	return errors.Join(failed...)
}
