// Pick a picture or take one: what is in it, by the bundle's model.
package edgeres.sample

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import android.os.Bundle
import android.provider.MediaStore
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView
import java.io.IOException
import java.util.concurrent.Executors

class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()
    private val model = lazy { Classifier(::asset) } // by the worker
    private lateinit var answer: TextView

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        answer = TextView(this).apply { textSize = 20f }
        val pick = Intent(Intent.ACTION_GET_CONTENT).setType("image/*").addCategory(Intent.CATEGORY_OPENABLE)
        val page = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            addView(button("Pick a picture", pick, PICKED))
            addView(button("Take a picture", Intent(MediaStore.ACTION_IMAGE_CAPTURE), TAKEN))
            addView(answer)
        }
        setContentView(page)
    }

    override fun onDestroy() {
        worker.execute { if (model.isInitialized()) model.value.close() }
        worker.shutdown()
        super.onDestroy()
    }

    @Deprecated("of android.app.Activity, which needs no other library")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        if (result != RESULT_OK || data == null) return
        val picked = data.data
        @Suppress("DEPRECATION") val taken = data.getParcelableExtra<Bitmap>("data")
        answer.text = "…"
        worker.execute {
            val text = try {
                said(if (request == PICKED && picked != null) read(picked) else Picture.of(taken, 1))
            } catch (error: Exception) {
                error.message ?: error.toString()
            } catch (error: OutOfMemoryError) {
                "this picture is too large for this app's memory"
            }
            runOnUiThread { answer.text = text }
        }
    }

    private fun button(label: String, intent: Intent, request: Int) = Button(this).apply {
        text = label
        setOnClickListener {
            try {
                @Suppress("DEPRECATION") startActivityForResult(intent, request)
            } catch (error: ActivityNotFoundException) {
                answer.text = error.message
            }
        }
    }

    /** A picture that the picker named: its first frame in 8-bit sRGB, upright, over white. */
    private fun read(uri: Uri): Picture {
        val turned = open(uri).use {
            ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1)
        }
        val plain = BitmapFactory.Options().apply {
            inPremultiplied = false
            inScaled = false
            inPreferredConfig = Bitmap.Config.ARGB_8888
        }
        return Picture.of(open(uri).use { BitmapFactory.decodeStream(it, null, plain) }, turned)
    }

    private fun open(uri: Uri) =
        contentResolver.openInputStream(uri) ?: throw IOException("can't read $uri")

    private fun asset(name: String): ByteArray = try {
        assets.open(name).use { it.readBytes() }
    } catch (error: IOException) {
        throw IOException("$name isn't in the app's assets: README.md, step 1", error)
    }

    private fun said(picture: Picture): String {
        val shares = model.value.shares(picture.rgb, picture.width, picture.height)
        return Preprocess.likeliest(shares, SHOWN).joinToString("\n") {
            "%.1f %%  %s".format(100 * shares[it], model.value.labels[it])
        }
    }

    private class Picture(val rgb: ByteArray, val width: Int, val height: Int) {
        companion object {
            fun of(bitmap: Bitmap?, turned: Int): Picture {
                bitmap ?: throw IOException("this is no picture that Android reads")
                val (w, h) = bitmap.width to bitmap.height
                val line = IntArray(w)
                val rgb = ByteArray(w * h * 3)
                for (j in 0 until h) {
                    bitmap.getPixels(line, 0, w, 0, j, w, 1)
                    Preprocess.place(line, j, w, h, turned, rgb)
                }
                return if (Preprocess.lies(turned)) Picture(rgb, h, w) else Picture(rgb, w, h)
            }
        }
    }

    private companion object {
        const val PICKED = 1
        const val TAKEN = 2
        const val SHOWN = 5
    }
}
