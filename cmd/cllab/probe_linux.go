package main

import "github.com/spf13/cobra"

func probeCommand(...*common) *cobra.Command { return &cobra.Command{Use: "probe"} }
