// Package metrics defines everything that Holdfast tells Prometheus, in one place, and serves it.
//
// What happens is counted when it happens (a lease granted, a transition's phase over, an executor run). What is, is read
// when somebody asks: the agent gives a source of samples, and an agent that nobody scrapes does no work for it. A value that
// is not known is left out, never shown as zero.
//
// A nil *Metrics takes everything and does nothing, so that callers need not ask. All methods may be called by any goroutine.
// It is the only package that imports the Prometheus library.
package metrics
