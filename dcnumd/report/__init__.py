"""What people see of a result: its report as page, data and picture, and the index of all of them."""
