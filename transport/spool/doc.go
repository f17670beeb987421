// Package spool is the durable queue.
package spool
