"""Is an exported file the network that was trained, in integers only?"""
