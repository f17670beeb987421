package main

import (
	"context"
	"errors"
)

func (a *app) bench(context.Context, []string) error { return errors.New("bench") }
