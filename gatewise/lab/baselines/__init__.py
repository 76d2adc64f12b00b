"""Networks and methods that are said to fail at long time lags, each as good as we can make it."""
