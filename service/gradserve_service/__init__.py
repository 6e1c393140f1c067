"""The Gradserve service."""
