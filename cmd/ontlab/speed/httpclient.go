package speed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// httpCount is what the client made of net/http prints.
type httpCount struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// runHTTPClient moves bytes as one does with Go's standard library: args are
// down or up, a URL, how many connections, and how many seconds.
func runHTTPClient(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 4 {
		return fmt.Errorf("%w: %s down|up URL CONNECTIONS SECONDS", ErrUsage, clientWord)
	}
	connections, err1 := strconv.Atoi(args[2])
	seconds, err2 := strconv.Atoi(args[3])
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	// A client that is asked for several connections does not wait for one.
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var bytes atomic.Int64
	failed := make([]error, connections)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			for ctx.Err() == nil && failed[i] == nil {
				if args[0] == "up" {
					failed[i] = httpUpload(ctx, client, args[1], &bytes)
				} else {
					failed[i] = httpDownload(ctx, client, args[1], &bytes)
				}
			}
		})
	}
	wg.Wait()
	count := httpCount{Bytes: bytes.Load(), Seconds: time.Since(began).Seconds()}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("cannot move bytes: %w", err)
	}
	if err := json.NewEncoder(out).Encode(count); err != nil {
		return fmt.Errorf("cannot print: %w", err)
	}
	return nil
}

// httpDownload is over, without an error, when ctx is.
func httpDownload(ctx context.Context, client *http.Client, url string, bytes *atomic.Int64) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err == nil {
		var n int64
		n, err = io.Copy(io.Discard, answer.Body)
		bytes.Add(n)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("the server says %s", answer.Status)
		}
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // its time is over
	}
	return err
}

func httpUpload(ctx context.Context, client *http.Client, url string, bytes *atomic.Int64) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, &endless{n: bytes})
	if err != nil {
		return err
	}
	request.ContentLength = 1 << 40
	answer, err := client.Do(request)
	if err == nil {
		_ = answer.Body.Close()
		return fmt.Errorf("the server says %s before the end", answer.Status)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // its time is over
	}
	return err
}

// endless is a body of zeros that counts what was taken of it.
type endless struct{ n *atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n.Add(int64(len(p)))
	return len(p), nil
}
