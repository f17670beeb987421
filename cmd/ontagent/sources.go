package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"ontagent/collectors"
	"ontagent/collectors/host"
	"ontagent/collectors/link"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/console"
	"ontagent/collectors/optics/hwmon"
	"ontagent/collectors/optics/module"
	"ontagent/collectors/pon"
	"ontagent/collectors/wan"
	"ontagent/config"
)

// sources are everything this gateway can be read by.
type sources struct {
	link   *link.Collector
	links  *link.Collector // unfiltered, for the steps
	host   *host.Collector
	wan    *wan.Collector
	optics *optics.Collector
	pon    *pon.Collector

	opticsReaders []optics.Reader
	console       *console.Console // nil: none configured
}

func openSources(c config.Config, log *slog.Logger) (*sources, error) {
	s := &sources{
		link: link.New(link.Options{
			Include: c.Collectors.Link.Include, Exclude: c.Collectors.Link.Exclude,
			Log: log.With("collector", "link"),
		}),
		links: link.New(link.Options{Log: log.With("reader", "link")}),
		host:  host.New(host.Options{Log: log.With("collector", "host")}),
		wan:   wan.New(wan.Options{Interface: c.WAN.Interface, Log: log.With("collector", "wan")}),
	}
	if c.Module.Interface != "" {
		s.opticsReaders = append(s.opticsReaders, module.New(module.Options{
			Interface: c.Module.Interface, Log: log.With("reader", "module"),
		}))
	}
	if c.Module.Hwmon != "" {
		s.opticsReaders = append(s.opticsReaders, hwmon.New(hwmon.Options{Chip: c.Module.Hwmon}))
	}
	var ponReaders []pon.Reader
	if c.Console.Enabled {
		con, err := console.New(console.Options{
			Port: c.Console.Port, Baud: c.Console.Baud, Driver: c.Console.Driver,
			Username: c.Console.Username, Password: string(c.Console.Password),
			Log: log.With("reader", "console"),
		})
		if err != nil {
			return nil, c.OptionError("console", "driver", err)
		}
		s.console = con
		s.opticsReaders = append(s.opticsReaders, con)
		ponReaders = append(ponReaders, ponConsole{con})
	}
	s.optics = optics.New(opticsOptions(c, s.opticsReaders, log))
	s.pon = pon.New(pon.Options{Readers: ponReaders, Log: log.With("collector", "pon"), Now: time.Now})
	return s, nil
}

// registry schedules the collectors that the configuration enables.
func (s *sources) registry(c config.Config, log *slog.Logger) *collectors.Registry {
	r := collectors.NewRegistry(collectors.RegistryOptions{Log: log, Now: time.Now})
	for _, e := range []struct {
		collector collectors.Collector
		schedule  config.Collector
	}{
		{s.link, c.Collectors.Link},
		{s.wan, c.Collectors.WAN},
		{s.optics, c.Collectors.Optics},
		{s.pon, c.Collectors.PON},
		{s.host, c.Collectors.Host},
	} {
		if e.schedule.Enabled {
			r.Add(e.collector, e.schedule.Interval, e.schedule.Timeout)
		}
	}
	return r
}

func (s *sources) close() error {
	if s.console == nil {
		return nil
	}
	return s.console.Close()
}

// ponConsole shows the console's registration facts to package pon.
type ponConsole struct{ *console.Console }

func (p ponConsole) ReadPON(ctx context.Context) (pon.Status, error) {
	st, err := p.Console.ReadPON(ctx)
	return pon.Status(st), err
}

func (p ponConsole) ReadPONFresh(ctx context.Context) (pon.Status, error) {
	st, err := p.Console.ReadPONFresh(ctx)
	return pon.Status(st), err
}

// collectOnce reads everything, twice where there is time, since a rate needs
// two readings.
func collectOnce(ctx context.Context, r *collectors.Registry) []collectors.Result {
	first := r.CollectOnce(ctx)
	select {
	case <-ctx.Done():
		return first
	case <-time.After(time.Second):
	}
	second := r.CollectOnce(ctx)
	if ctx.Err() != nil {
		return first
	}
	return second
}

func resultError(err error) string {
	if err == nil {
		return ""
	}
	if errors.Is(err, collectors.ErrNoData) {
		return collectors.ErrNoData.Error()
	}
	return err.Error()
}
