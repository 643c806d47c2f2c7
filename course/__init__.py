"""What instructors run: nbgrader's commands with this homework's grades, and new courses."""
