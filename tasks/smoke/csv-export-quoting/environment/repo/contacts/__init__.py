COLUMNS = ("name", "email", "phone", "note")
