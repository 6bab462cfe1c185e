package main

import "github.com/spf13/cobra"

func appCommand(...*common) *cobra.Command { return &cobra.Command{Use: "app"} }
