"""`python -m gradserve_service` is `gradserve`."""

from gradserve_service.cli import main

if __name__ == "__main__":
    main()
