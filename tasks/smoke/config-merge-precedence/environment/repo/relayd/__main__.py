import os
import sys

from relayd.settings import resolve

for name, value in resolve(sys.argv[1:], os.environ).items():
    print(f"{name} = {value}")
