package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// slotDir holds a lock file per slot in use.
const slotDir = "/run/ambientd-cluster"

var errTaken = errors.New("taken by another cluster")

// lock is a slot that is ours until released or until we die.
type lock struct {
	file *os.File
}

// takeSlot locks a slot: the wanted one, or with -1 the first that is free and
// whose ranges the host does not route elsewhere. What a killed cluster left in
// it is removed.
func takeSlot(wanted, nodes int) (*lock, Plan, error) {
	first, last := 0, slotsCount-1
	if wanted >= 0 {
		first, last = wanted, wanted
	}
	var reasons []error
	for slot := first; slot <= last; slot++ {
		p := plan(slot, nodes)
		l, err := lockSlot(slot)
		if err == nil {
			err = clean(p)
			if err == nil {
				err = unrouted(p)
			}
			if err == nil {
				return l, p, nil
			}
			l.release()
		}
		reasons = append(reasons, fmt.Errorf("slot %d: %w", slot, err))
	}
	return nil, Plan{}, fmt.Errorf("no slot is free: %w", errors.Join(reasons...))
}

func lockSlot(slot int) (*lock, error) {
	if err := os.MkdirAll(slotDir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(slotDir, fmt.Sprintf("%d.lock", slot))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, errTaken
	}
	// Its last holder may have removed the file between our two calls.
	ours, err := file.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(path); err == nil && !os.SameFile(ours, there) {
			err = errTaken
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &lock{file: file}, nil
}

// release gives the slot back.
func (l *lock) release() {
	_ = os.Remove(l.file.Name())
	l.file.Close()
	// Succeeds for the last one alone.
	_ = os.Remove(slotDir)
}

// unrouted says whether the host routes any of the plan's ranges already.
func unrouted(p Plan) error {
	for _, cidr := range []string{p.PodCIDR, p.ServiceCIDR} {
		routes, err := ip("-4", "route", "show", "root", cidr)
		if err != nil {
			return err
		}
		if routes = strings.TrimSpace(routes); routes != "" {
			return fmt.Errorf("the host routes %s: %s", cidr, routes)
		}
	}
	return nil
}
