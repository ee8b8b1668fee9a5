package run

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// serveControl answers commands, one a line:
//
//	kill PART    end it by SIGKILL
//	term PART    ask it to end
//	stop PART    have it stand still
//	cont PART    have it go on
//	start PART   start it again
//	status       a line for each part
//
// Each is answered by lines of its own, then "ok" or "error: …". Whoever gets an
// "ok" for kill or term knows that the process is gone.
func (s *supervisor) serveControl(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			lines := bufio.NewScanner(connection)
			for lines.Scan() {
				answer, err := s.obey(strings.Fields(lines.Text()))
				for _, line := range answer {
					fmt.Fprintln(connection, line)
				}
				if err != nil {
					fmt.Fprintf(connection, "error: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
				} else {
					fmt.Fprintln(connection, "ok")
				}
			}
		}()
	}
}

func (s *supervisor) obey(words []string) ([]string, error) {
	if len(words) == 1 && words[0] == "status" {
		return s.status(), nil
	}
	if len(words) != 2 {
		return nil, errors.New("a command and a part are wanted")
	}
	switch command, name := words[0], words[1]; command {
	case "kill":
		return nil, s.end(name, syscall.SIGKILL)
	case "term":
		return nil, s.end(name, syscall.SIGTERM)
	case "stop":
		return nil, s.signal(name, syscall.SIGSTOP)
	case "cont":
		return nil, s.signal(name, syscall.SIGCONT)
	case "start":
		return nil, s.start(name)
	default:
		return nil, fmt.Errorf("no command %q", command)
	}
}
